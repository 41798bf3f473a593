//! The static check: every name, every type, before a condition is ever asked.

use std::ops::Range;

use cel::Program;
use cel::common::ast::operators as op;
use cel::common::ast::{CallExpr, Expr as Node, IdedExpr, ListExpr, LiteralValue, SelectExpr};

use super::{CHECKED_DIVISION, Mistake, Type, Vocabulary};

/// Nodes on a path from the root: evaluation recurses so deep.
const DEPTH_MAX: usize = 100;

/// Bytes that a pattern may compile to.
const PATTERN_MAX: usize = 1 << 20;

/// Checks one expression.
pub(super) struct Checker<'a> {
    source: &'a str,
    vocabulary: &'static Vocabulary,
    program: &'a Program,
}

/// The type of a sub-expression; `None` is one that fits everywhere (`null`, an empty list's element).
type Found = Result<Type, Mistake>;

impl<'a> Checker<'a> {
    pub(super) fn new(source: &'a str, vocabulary: &'static Vocabulary, program: &'a Program) -> Self {
        Self {
            source,
            vocabulary,
            program,
        }
    }

    /// A condition says yes or no.
    pub(super) fn condition(&self, root: &IdedExpr) -> Result<(), Mistake> {
        match self.type_of(root, 0)? {
            Type::Bool => Ok(()),
            other => Err(Mistake {
                message: format!("a condition says true or false, this is of type {other}"),
                span: 0..self.source.len(),
                hint: Some("compare it with something, as in `candidate.error_rate > 0.05`".to_owned()),
            }),
        }
    }

    fn type_of(&self, node: &IdedExpr, depth: usize) -> Found {
        if depth > DEPTH_MAX {
            return Err(self.mistake(node, format!("this is nested more than {DEPTH_MAX} deep"), None));
        }
        match &node.expr {
            Node::Literal(literal) => self.literal(node, literal),
            Node::Ident(name) => self.variable(node, name),
            Node::Select(select) => self.select(node, select, depth),
            Node::Call(call) => self.call(node, call, depth),
            Node::List(list) => self.list(node, list, depth),
            Node::Comprehension(_) => Err(self.mistake(
                node,
                "loops (`all`, `exists`, `map`, `filter`) are not available here".to_owned(),
                None,
            )),
            Node::Map(_) | Node::Struct(_) | Node::Unspecified => {
                Err(self.mistake(node, "maps and records cannot be written here".to_owned(), None))
            }
        }
    }

    fn literal(&self, node: &IdedExpr, literal: &LiteralValue) -> Found {
        match literal {
            LiteralValue::Boolean(_) => Ok(Type::Bool),
            LiteralValue::Double(_) => Ok(Type::Double),
            LiteralValue::Int(_) => Ok(Type::Int),
            LiteralValue::String(_) => Ok(Type::String),
            LiteralValue::UInt(_) => Err(self.mistake(
                node,
                "unsigned numbers are of no use here".to_owned(),
                Some("leave the `u` out".to_owned()),
            )),
            LiteralValue::Bytes(_) | LiteralValue::Null => {
                Err(self.mistake(node, "bytes and `null` are of no use here".to_owned(), None))
            }
        }
    }

    fn variable(&self, node: &IdedExpr, name: &str) -> Found {
        let found = self.vocabulary.iter().find(|(known, _)| *known == name);
        found.map(|(_, kind)| *kind).ok_or_else(|| {
            let known = self.vocabulary.iter().map(|(known, _)| *known);
            self.mistake(
                node,
                format!("there is no `{name}` here"),
                Some(meant(name, known)),
            )
        })
    }

    fn select(&self, node: &IdedExpr, select: &SelectExpr, depth: usize) -> Found {
        let field = select.field.as_str();
        let kind = match self.type_of(&select.operand, depth + 1)? {
            Type::Record(fields) => {
                let found = fields.iter().find(|(known, _)| *known == field);
                found.map(|(_, kind)| *kind).ok_or_else(|| {
                    let known = fields.iter().map(|(known, _)| *known);
                    self.mistake(
                        node,
                        format!("there is no field `{field}` here"),
                        Some(meant(field, known)),
                    )
                })?
            }
            Type::Map(of) => *of,
            other => {
                return Err(self.mistake(node, format!("a value of type {other} has no fields"), None));
            }
        };
        Ok(if select.test { Type::Bool } else { kind })
    }

    fn list(&self, node: &IdedExpr, list: &ListExpr, depth: usize) -> Found {
        let mut kind = None;
        for element in &list.elements {
            let of = self.type_of(element, depth + 1)?;
            if *kind.get_or_insert(of) != of {
                return Err(self.mistake(element, "the elements of a list are of one type".to_owned(), None));
            }
        }
        let of = match kind {
            Some(Type::String) => &Type::String,
            Some(Type::Int) => &Type::Int,
            Some(Type::Double) => &Type::Double,
            Some(Type::Bool) => &Type::Bool,
            Some(_) => return Err(self.mistake(node, "a list here has plain values".to_owned(), None)),
            None => return Err(self.mistake(node, "an empty list is of no use here".to_owned(), None)),
        };
        Ok(Type::List(of))
    }

    fn call(&self, node: &IdedExpr, call: &CallExpr, depth: usize) -> Found {
        let mut types = Vec::with_capacity(3);
        for child in call.target.as_deref().into_iter().chain(&call.args) {
            types.push(self.type_of(child, depth + 1)?);
        }
        let name = call.func_name.as_str();
        match (name, types.as_slice()) {
            (op::LOGICAL_AND | op::LOGICAL_OR, [Type::Bool, Type::Bool])
            | (op::LOGICAL_NOT, [Type::Bool]) => Ok(Type::Bool),
            (op::CONDITIONAL, [Type::Bool, a, b]) if a == b => Ok(*a),
            (op::EQUALS | op::NOT_EQUALS, [a, b]) if alike(*a, *b) => Ok(Type::Bool),
            (op::LESS | op::LESS_EQUALS | op::GREATER | op::GREATER_EQUALS, [a, b])
                if alike(*a, *b) && *a != Type::Bool =>
            {
                Ok(Type::Bool)
            }
            (op::ADD, [Type::String, Type::String]) => Ok(Type::String),
            (op::ADD | op::SUBSTRACT | op::MULTIPLY | op::DIVIDE, [a, b]) if a == b && is_number(*a) => {
                Ok(*a)
            }
            (op::MODULO, [Type::Int, Type::Int]) => Ok(Type::Int),
            (op::NEGATE, [a]) if is_number(*a) => Ok(*a),
            (op::INDEX, [Type::Map(of), Type::String]) | (op::INDEX, [Type::List(of), Type::Int]) => Ok(**of),
            (op::IN, [a, Type::List(of)]) if *a == **of => Ok(Type::Bool),
            (op::IN, [Type::String, Type::Map(_)]) => Ok(Type::Bool),
            ("size", [Type::String | Type::List(_) | Type::Map(_)]) => Ok(Type::Int),
            ("startsWith" | "endsWith" | "contains" | "inNetwork", [Type::String, Type::String]) => {
                Ok(Type::Bool)
            }
            ("matches", [Type::String, Type::String]) => self.pattern(call),
            ("int", [Type::Int | Type::Double | Type::String]) => Ok(Type::Int),
            ("double", [Type::Int | Type::Double | Type::String]) => Ok(Type::Double),
            ("string", [Type::Int | Type::Double | Type::String | Type::Bool]) => Ok(Type::String),
            _ => Err(self.no_overload(node, name, &types)),
        }
    }

    /// A pattern is written out, so that it can be checked and bounded now.
    fn pattern(&self, call: &CallExpr) -> Found {
        let Some(last) = call.args.last() else {
            return Ok(Type::Bool);
        };
        let Node::Literal(LiteralValue::String(text)) = &last.expr else {
            return Err(self.mistake(
                last,
                "the pattern of `matches` is written out here".to_owned(),
                None,
            ));
        };
        let built = regex::RegexBuilder::new(text.inner())
            .size_limit(PATTERN_MAX)
            .build();
        match built {
            Ok(_) => Ok(Type::Bool),
            Err(error) => {
                let why = error.to_string();
                let why = why
                    .lines()
                    .last()
                    .unwrap_or_default()
                    .trim_start_matches("error: ")
                    .to_owned();
                Err(self.mistake(last, format!("the pattern cannot be used: {why}"), None))
            }
        }
    }

    fn no_overload(&self, node: &IdedExpr, name: &str, types: &[Type]) -> Mistake {
        let shown: Vec<_> = types.iter().map(ToString::to_string).collect();
        let operator = name.trim_matches('_').trim_start_matches('@');
        let is_operator = name.contains('_') || name.starts_with('@') || name.starts_with('!');
        let message = if is_operator && !matches!(name, op::INDEX) {
            format!("`{operator}` does not go with {}", shown.join(" and "))
        } else if name == op::INDEX {
            format!("`[…]` does not go with {}", shown.join(" and "))
        } else {
            format!("there is no function `{name}` of {}", shown.join(" and "))
        };
        let mixed = matches!(types, [Type::Int, Type::Double] | [Type::Double, Type::Int]);
        let hint = mixed.then(|| "write both as doubles: `2.0` for `2`, `double(x)` for an int".to_owned());
        self.mistake(node, message, hint)
    }

    fn mistake(&self, node: &IdedExpr, message: String, hint: Option<String>) -> Mistake {
        Mistake {
            message,
            span: self.place(node),
            hint,
        }
    }

    fn place(&self, node: &IdedExpr) -> Range<usize> {
        let all = 0..self.source.len();
        // The parser counts characters.
        if !self.source.is_ascii() {
            return all;
        }
        let Some((start, stop)) = self.program.source_info().offset_for(node.id) else {
            return all;
        };
        let (start, stop) = (start as usize, (stop as usize).saturating_add(1));
        if start < stop && stop <= self.source.len() {
            start..stop
        } else {
            all
        }
    }

    /// Divisions of doubles become calls that refuse a zero; true if there was one.
    pub(super) fn rewrite_divisions(&self, node: &mut IdedExpr) -> bool {
        let double = match &node.expr {
            Node::Call(call) if call.func_name == op::DIVIDE => call
                .args
                .first()
                .is_some_and(|first| self.type_of(first, 0) == Ok(Type::Double)),
            _ => false,
        };
        let mut any = double;
        match &mut node.expr {
            Node::Call(call) => {
                // Inside first: the type of what is rewritten is not asked for again.
                for child in call.target.as_deref_mut().into_iter().chain(&mut call.args) {
                    any |= self.rewrite_divisions(child);
                }
                if double {
                    CHECKED_DIVISION.clone_into(&mut call.func_name);
                }
            }
            Node::Select(select) => any |= self.rewrite_divisions(&mut select.operand),
            Node::List(list) => {
                for child in &mut list.elements {
                    any |= self.rewrite_divisions(child);
                }
            }
            _ => {}
        }
        any
    }
}

const fn is_number(kind: Type) -> bool {
    matches!(kind, Type::Int | Type::Double)
}

/// Whether two values can be compared.
fn alike(a: Type, b: Type) -> bool {
    let plain = matches!(a, Type::Bool | Type::String) && a == b;
    plain || (is_number(a) && is_number(b))
}

/// The name that was probably meant, or all there are.
fn meant<'n>(name: &str, known: impl Iterator<Item = &'n str> + Clone) -> String {
    let best = known
        .clone()
        .map(|candidate| (strsim::jaro_winkler(name, candidate), candidate))
        .filter(|(likeness, _)| *likeness > 0.8)
        .max_by(|(a, _), (b, _)| a.total_cmp(b));
    match best {
        Some((_, candidate)) => format!("did you mean `{candidate}`?"),
        None => format!("there are: {}", known.collect::<Vec<_>>().join(", ")),
    }
}
