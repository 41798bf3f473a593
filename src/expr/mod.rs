//! Conditions in CEL (the Common Expression Language), for gates, guards and rules: compiled and type-checked when
//! the config is read, bounded in size, and never able to end the process.
//!
//! The `cel` crate parses and evaluates. What it has not is here: a static type check against a [`Type`] of each
//! variable, with the place and the reason of a mistake; bounds on length, nesting and size; no loops, so that an
//! evaluation costs no more than the expression is long; and a division by zero that is no answer instead of infinity.

mod check;
#[cfg(test)]
mod tests;
mod tree;

use std::collections::BTreeSet;
use std::fmt;
use std::ops::Range;
use std::sync::{Arc, LazyLock};

use cel::common::ast::{Expr as Node, IdedExpr};
use cel::{Env, ExecutionError, Program};

use check::Checker;

pub use cel::{Context, Value};
pub use tree::{How, Subject, Tree};

/// Bytes of an expression; more is no condition but a program.
pub const SOURCE_MAX: usize = 4096;

/// Brackets inside brackets.
pub const NESTING_MAX: usize = 32;

/// The stack that an expression is parsed on: the parser recurses, and what is parsed was not looked at before.
const PARSER_STACK: usize = 64 << 20;

/// The function that a division of doubles becomes.
const CHECKED_DIVISION: &str = "checked_division";

/// What a variable is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Type {
    /// `true`, `false`
    Bool,
    /// `10`
    Int,
    /// `0.5`
    Double,
    /// `"text"`
    String,
    /// Values of one type under names that are not known beforehand: `headers["x-beta"]`.
    Map(&'static Type),
    /// Values of one type in order.
    List(&'static Type),
    /// Named fields: `candidate.p95`.
    Record(&'static [(&'static str, Type)]),
}

impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bool => f.write_str("bool"),
            Self::Int => f.write_str("int"),
            Self::Double => f.write_str("double"),
            Self::String => f.write_str("string"),
            Self::Map(of) => write!(f, "map of {of}"),
            Self::List(of) => write!(f, "list of {of}"),
            Self::Record(_) => f.write_str("record"),
        }
    }
}

/// The variables that an expression may name.
pub type Vocabulary = [(&'static str, Type)];

/// What is wrong with an expression.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Mistake {
    /// Why, in a sentence without a full stop.
    pub message: String,
    /// Where in the source, in bytes; the whole of it when that is not known.
    pub span: Range<usize>,
    /// What to write instead.
    pub hint: Option<String>,
}

/// A compiled condition. Two are equal when their source is.
#[derive(Clone)]
pub struct Condition {
    source: Arc<str>,
    root: Arc<IdedExpr>,
    divides: bool,
    paths: Arc<BTreeSet<String>>,
}

impl Condition {
    /// Parse a source and check it: every name and type, and that it says yes or no.
    ///
    /// # Errors
    /// The first [`Mistake`] found.
    pub fn compile(source: &str, vocabulary: &'static Vocabulary) -> Result<Self, Mistake> {
        bounded(source)?;
        let text = source.to_owned();
        // A stack of its own: neither depth nor a panic of the parser reaches this thread.
        let parsed = std::thread::Builder::new()
            .name("cel".to_owned())
            .stack_size(PARSER_STACK)
            .spawn(move || parse(&text, vocabulary));
        match parsed.map(std::thread::JoinHandle::join) {
            Ok(Ok(result)) => result,
            Ok(Err(_)) => Err(whole(source, "this cannot be parsed")),
            Err(error) => Err(whole(source, &format!("this cannot be parsed now: {error}"))),
        }
    }

    /// The text it was compiled from.
    #[must_use]
    pub fn source(&self) -> &str {
        &self.source
    }

    /// The variables with their fields that it names, as written: `candidate.p95`.
    #[must_use]
    pub fn paths(&self) -> &BTreeSet<String> {
        &self.paths
    }

    /// Whether it names a variable, or a field below it.
    #[must_use]
    pub fn names(&self, variable: &str) -> bool {
        let below = |path: &String| {
            path.strip_prefix(variable)
                .is_some_and(|rest| rest.starts_with('.'))
        };
        self.paths.iter().any(|path| path == variable || below(path))
    }

    /// Whether it holds. `set` gives the context its variables; what is left out is missing, which is no answer.
    ///
    /// # Errors
    /// [`NoAnswer`]: a value that it needs is missing, a division by zero, an overflow. `a || b` holds when one side
    /// does, whatever the other side lacks.
    pub fn holds<'v>(&self, set: impl FnOnce(&mut Context<'_, 'v>)) -> Result<bool, NoAnswer> {
        let mut context = Context::with_env(Arc::clone(&ENV));
        set(&mut context);
        if self.divides {
            // Its name is not one of the environment's, which is the only way in which this fails.
            let _ = context.add_function(CHECKED_DIVISION, divide);
        }
        match Value::resolve(&self.root, &context) {
            Ok(Value::Bool(holds)) => Ok(holds),
            Ok(_) => Err(NoAnswer::Failed("it says neither true nor false".to_owned())),
            Err(error) => Err(NoAnswer::from(error)),
        }
    }
}

impl fmt::Debug for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Condition").field(&self.source).finish()
    }
}

impl PartialEq for Condition {
    fn eq(&self, other: &Self) -> bool {
        self.source == other.source
    }
}

impl Eq for Condition {}

/// Why a condition says neither yes nor no.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoAnswer {
    /// A value that it needs is not there.
    #[error("there is no `{0}` yet")]
    Missing(String),
    /// A division or remainder by zero.
    #[error("division by zero")]
    DivisionByZero,
    /// Anything else: an overflow, a comparison with what is no number.
    #[error("{0}")]
    Failed(String),
}

impl From<ExecutionError> for NoAnswer {
    fn from(error: ExecutionError) -> Self {
        match error {
            ExecutionError::NoSuchKey(key) => Self::Missing(key.to_string()),
            ExecutionError::UndeclaredReference(name) => Self::Missing(name.to_string()),
            ExecutionError::DivisionByZero(_) | ExecutionError::RemainderByZero(_) => Self::DivisionByZero,
            ExecutionError::FunctionError { function, .. } if function == CHECKED_DIVISION => {
                Self::DivisionByZero
            }
            // It may quote what came from a client: bounded.
            error => Self::Failed(error.to_string().chars().take(200).collect()),
        }
    }
}

static ENV: LazyLock<Arc<Env>> = LazyLock::new(|| Arc::new(Env::stdlib()));

fn divide(a: f64, b: f64) -> Result<f64, ExecutionError> {
    let ratio = a / b;
    if ratio.is_finite() {
        Ok(ratio)
    } else {
        Err(ExecutionError::function_error(CHECKED_DIVISION, "by zero"))
    }
}

fn whole(source: &str, message: &str) -> Mistake {
    Mistake {
        message: message.to_owned(),
        span: 0..source.len(),
        hint: None,
    }
}

/// What can be refused before it is parsed.
fn bounded(source: &str) -> Result<(), Mistake> {
    if source.len() > SOURCE_MAX {
        let message = format!(
            "an expression has {SOURCE_MAX} bytes at most, this one {}",
            source.len()
        );
        return Err(whole(source, &message));
    }
    if source.trim().is_empty() {
        return Err(whole(source, "the expression is empty"));
    }
    let mut depth = 0_usize;
    for (at, byte) in source.bytes().enumerate() {
        match byte {
            b'(' | b'[' | b'{' => depth += 1,
            b')' | b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth > NESTING_MAX {
            return Err(Mistake {
                message: format!("brackets are nested more than {NESTING_MAX} deep"),
                span: at..at + 1,
                hint: None,
            });
        }
    }
    Ok(())
}

fn parse(source: &str, vocabulary: &'static Vocabulary) -> Result<Condition, Mistake> {
    let program = Program::compile(source).map_err(|errors| syntax(source, &errors))?;
    let checker = Checker::new(source, vocabulary, &program);
    let mut root = program.expression().clone();
    checker.condition(&root)?;
    let divides = checker.rewrite_divisions(&mut root);
    let mut paths = BTreeSet::new();
    collect_paths(&root, &mut paths);
    Ok(Condition {
        source: Arc::from(source),
        root: Arc::new(root),
        divides,
        paths: Arc::new(paths),
    })
}

/// The parser's first complaint, with the place it points at.
fn syntax(source: &str, errors: &cel::ParseErrors) -> Mistake {
    let Some(first) = errors.errors.first() else {
        return whole(source, "this cannot be parsed");
    };
    let (line, column) = first.pos;
    let before: usize = source
        .split_inclusive('\n')
        .take(usize::try_from(line).unwrap_or(1).saturating_sub(1))
        .map(str::len)
        .sum();
    let at = before + usize::try_from(column).unwrap_or(0).saturating_sub(1);
    let at = at.min(source.len().saturating_sub(1));
    let message = first
        .msg
        .lines()
        .next()
        .unwrap_or_default()
        .replace("Syntax error: ", "");
    let message = message.split(" expecting ").next().unwrap_or_default().to_owned();
    let message: String = message.chars().take(200).collect();
    Mistake {
        message: format!("this is not CEL: {message}"),
        span: if source.is_ascii() {
            at..at + 1
        } else {
            0..source.len()
        },
        hint: None,
    }
}

fn collect_paths(node: &IdedExpr, into: &mut BTreeSet<String>) {
    if let Some(path) = path_of(node) {
        into.insert(path);
        return;
    }
    match &node.expr {
        Node::Call(call) => {
            for child in call.target.as_deref().into_iter().chain(&call.args) {
                collect_paths(child, into);
            }
        }
        Node::Select(select) => collect_paths(&select.operand, into),
        Node::List(list) => list.elements.iter().for_each(|child| collect_paths(child, into)),
        _ => {}
    }
}

/// `a.b.c`, if the node spells one.
fn path_of(node: &IdedExpr) -> Option<String> {
    match &node.expr {
        Node::Ident(name) => Some(name.clone()),
        Node::Select(select) => Some(format!("{}.{}", path_of(&select.operand)?, select.field)),
        _ => None,
    }
}
