//! Simple conditions as a tree of tests on texts, so that who knows the variables can answer them without the
//! interpreter: nothing is copied, and a pattern is compiled once.

use cel::common::ast::operators as op;
use cel::common::ast::{CallExpr, Expr as Node, IdedExpr, LiteralValue};
use regex::Regex;

use super::{Condition, path_of};

/// A condition without arithmetic: tests, joined.
#[derive(Clone, Debug)]
pub enum Tree {
    /// All hold. A false one outweighs one that has no answer.
    All(Vec<Tree>),
    /// One holds. A true one outweighs one that has no answer.
    Any(Vec<Tree>),
    /// It does not hold.
    Not(Box<Tree>),
    /// `true`, `false`
    Always(bool),
    /// A test of one value.
    Test(Subject, How),
}

/// The value that is tested.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subject {
    /// A variable with its fields: `request.headers`.
    pub path: String,
    /// The key in the map that it is.
    pub key: Option<String>,
}

/// How a value is tested.
#[derive(Clone, Debug)]
pub enum How {
    /// A boolean: it is true.
    IsTrue,
    /// The key is there.
    IsThere,
    /// The text is this one.
    Is(String),
    /// The text is one of these.
    IsOneOf(Vec<String>),
    /// The text begins so.
    StartsWith(String),
    /// The text ends so.
    EndsWith(String),
    /// The text has this in it.
    Contains(String),
    /// The pattern is found in the text.
    Matches(Regex),
    /// The text is an address in this network.
    InNetwork(String),
}

impl Condition {
    /// The condition as a tree, if it is simple enough: comparisons of variables with texts that are written out.
    #[must_use]
    pub fn tree(&self) -> Option<Tree> {
        tree(&self.root)
    }

    /// Whether it calls this function.
    #[must_use]
    pub fn calls(&self, function: &str) -> bool {
        calls(&self.root, function)
    }
}

fn calls(node: &IdedExpr, function: &str) -> bool {
    let below = |node: &IdedExpr| calls(node, function);
    match &node.expr {
        Node::Call(call) => {
            call.func_name == function || call.target.as_deref().into_iter().chain(&call.args).any(below)
        }
        Node::Select(select) => below(&select.operand),
        Node::List(list) => list.elements.iter().any(below),
        _ => false,
    }
}

fn tree(node: &IdedExpr) -> Option<Tree> {
    match &node.expr {
        Node::Literal(LiteralValue::Boolean(value)) => Some(Tree::Always(*value.inner())),
        Node::Select(select) if select.test => {
            let subject = Subject {
                path: path_of(&select.operand)?,
                key: Some(select.field.clone()),
            };
            Some(Tree::Test(subject, How::IsThere))
        }
        Node::Ident(_) | Node::Select(_) => Some(Tree::Test(subject(node)?, How::IsTrue)),
        Node::Call(call) => called(call),
        _ => None,
    }
}

fn called(call: &CallExpr) -> Option<Tree> {
    let both = || -> Option<Vec<Tree>> { call.args.iter().map(tree).collect() };
    match (
        call.func_name.as_str(),
        call.target.as_deref(),
        call.args.as_slice(),
    ) {
        (op::LOGICAL_AND, None, _) => Some(Tree::All(both()?)),
        (op::LOGICAL_OR, None, _) => Some(Tree::Any(both()?)),
        (op::LOGICAL_NOT, None, [of]) => Some(Tree::Not(Box::new(tree(of)?))),
        (op::EQUALS, None, [a, b]) => equal(a, b),
        (op::NOT_EQUALS, None, [a, b]) => Some(Tree::Not(Box::new(equal(a, b)?))),
        (op::IN, None, [of, list]) => contained(of, list),
        (name, Some(of), [with]) | (name, None, [of, with]) => {
            let with = text(with)?;
            let how = match name {
                "startsWith" => How::StartsWith(with),
                "endsWith" => How::EndsWith(with),
                "contains" => How::Contains(with),
                "inNetwork" => How::InNetwork(with),
                // It was compiled once before, when it was checked.
                "matches" => How::Matches(Regex::new(&with).ok()?),
                _ => return None,
            };
            Some(Tree::Test(subject(of)?, how))
        }
        _ => None,
    }
}

fn equal(a: &IdedExpr, b: &IdedExpr) -> Option<Tree> {
    let test = |of, with| Some(Tree::Test(subject(of)?, How::Is(text(with)?)));
    test(a, b).or_else(|| test(b, a))
}

fn contained(of: &IdedExpr, list: &IdedExpr) -> Option<Tree> {
    if let Node::List(list) = &list.expr {
        let texts = list.elements.iter().map(text).collect::<Option<_>>()?;
        return Some(Tree::Test(subject(of)?, How::IsOneOf(texts)));
    }
    let subject = Subject {
        path: path_of(list)?,
        key: Some(text(of)?),
    };
    Some(Tree::Test(subject, How::IsThere))
}

/// `request.path`, or `request.headers["x-beta"]`.
fn subject(node: &IdedExpr) -> Option<Subject> {
    if let Node::Call(call) = &node.expr {
        return match (call.func_name.as_str(), call.args.as_slice()) {
            (op::INDEX, [of, key]) => Some(Subject {
                path: path_of(of)?,
                key: Some(text(key)?),
            }),
            _ => None,
        };
    }
    Some(Subject {
        path: path_of(node)?,
        key: None,
    })
}

fn text(node: &IdedExpr) -> Option<String> {
    match &node.expr {
        Node::Literal(LiteralValue::String(text)) => Some(text.inner().to_owned()),
        _ => None,
    }
}
