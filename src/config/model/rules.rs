//! `[[app.NAME.rule]]`: conditions on a request, compiled when the config is read.

use http::HeaderName;

use super::Network;
use crate::config::values;
use crate::expr::{Condition, How, Subject, Tree, Type, Vocabulary};

/// What a rule may ask of a request.
pub const REQUEST_WORDS: &Vocabulary = &[
    (
        "request",
        Type::Record(&[
            ("method", Type::String),
            ("host", Type::String),
            ("path", Type::String),
            ("scheme", Type::String),
            ("query", Type::Map(&Type::String)),
            ("headers", Type::Map(&Type::String)),
            ("cookies", Type::Map(&Type::String)),
        ]),
    ),
    ("client", Type::Record(&[("address", Type::String)])),
    (
        "tls",
        Type::Record(&[
            ("used", Type::Bool),
            ("server_name", Type::String),
            ("subject", Type::String),
        ]),
    ),
];

/// One rule: requests for which `when` holds go to `color`.
#[derive(Clone, Debug)]
pub struct Rule {
    /// The condition.
    pub when: Condition,
    /// The same, for the request path; `None` leaves it to the interpreter.
    pub native: Option<Test>,
    /// Where they go.
    pub color: RuleColor,
}

impl PartialEq for Rule {
    fn eq(&self, other: &Self) -> bool {
        (&self.when, self.color) == (&other.when, other.color)
    }
}

/// Where a rule sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RuleColor {
    /// To blue.
    Blue,
    /// To green.
    Green,
    /// To the color that is active.
    Active,
    /// To the color that has a share besides the active one; while none has, the rule is passed over.
    Candidate,
}

impl RuleColor {
    /// The word in the file.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Blue => "blue",
            Self::Green => "green",
            Self::Active => "active",
            Self::Candidate => "candidate",
        }
    }
}

/// A condition that needs no interpreter.
#[derive(Clone, Debug)]
pub enum Test {
    /// All hold.
    All(Box<[Test]>),
    /// One holds.
    Any(Box<[Test]>),
    /// It does not hold.
    Not(Box<Test>),
    /// `true`, `false`
    Always(bool),
    /// The connection is TLS.
    Tls,
    /// The client is in this network.
    InNetwork(Network),
    /// A text of the request is such.
    Text(Field, How),
}

/// A text of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Field {
    /// `request.method`
    Method,
    /// `request.host`: lower case, no port.
    Host,
    /// `request.path`
    Path,
    /// `request.scheme`: of the client's side.
    Scheme,
    /// `request.query["…"]`: the first of this name, decoded.
    Query(String),
    /// `request.headers["…"]`: the first of this name.
    Header(HeaderName),
    /// `request.cookies["…"]`: the first of this name.
    Cookie(String),
    /// `client.address`
    Client,
    /// `tls.server_name`
    ServerName,
    /// `tls.subject`: of the client's certificate.
    Subject,
}

impl Test {
    /// Of a condition; `None` when it takes the interpreter.
    ///
    /// # Errors
    /// A name or a network that no request can have.
    pub(in crate::config) fn of(condition: &Condition) -> Result<Option<Self>, String> {
        match condition.tree() {
            Some(tree) => compile(tree),
            None => Ok(None),
        }
    }
}

type Compiled<T> = Result<Option<T>, String>;

fn compile(tree: Tree) -> Compiled<Test> {
    Ok(match tree {
        Tree::All(parts) => all(parts)?.map(Test::All),
        Tree::Any(parts) => all(parts)?.map(Test::Any),
        Tree::Not(of) => compile(*of)?.map(|of| Test::Not(Box::new(of))),
        Tree::Always(value) => Some(Test::Always(value)),
        Tree::Test(subject, How::IsTrue) => is_tls(&subject).then_some(Test::Tls),
        Tree::Test(subject, How::InNetwork(text)) => {
            let network = values::network(&text).map_err(|why| format!("`{text}` is no network: {why}"))?;
            (field(subject)? == Some(Field::Client)).then_some(Test::InNetwork(network))
        }
        Tree::Test(subject, how) => field(subject)?.map(|field| Test::Text(field, how)),
    })
}

/// Parts of the same kind inside each other are one list.
fn all(parts: Vec<Tree>) -> Compiled<Box<[Test]>> {
    parts.into_iter().map(compile).collect()
}

fn is_tls(subject: &Subject) -> bool {
    subject.path == "tls.used" && subject.key.is_none()
}

fn field(subject: Subject) -> Compiled<Field> {
    let Subject { path, key } = subject;
    // `request.headers.accept` is `request.headers["accept"]`.
    let (path, key) = match (key, path.rsplit_once('.')) {
        (None, Some((map @ ("request.headers" | "request.cookies" | "request.query"), key))) => {
            (map.to_owned(), Some(key.to_owned()))
        }
        (key, _) => (path, key),
    };
    Ok(match (path.as_str(), key) {
        ("request.method", None) => Some(Field::Method),
        ("request.host", None) => Some(Field::Host),
        ("request.path", None) => Some(Field::Path),
        ("request.scheme", None) => Some(Field::Scheme),
        ("request.query", Some(key)) => Some(Field::Query(key)),
        ("request.cookies", Some(key)) => Some(Field::Cookie(key)),
        ("request.headers", Some(key)) => match HeaderName::from_lowercase(key.as_bytes()) {
            Ok(name) => Some(Field::Header(name)),
            Err(_) => return Err(format!("`{key}` is no header here: names are in lower case")),
        },
        ("client.address", None) => Some(Field::Client),
        ("tls.server_name", None) => Some(Field::ServerName),
        ("tls.subject", None) => Some(Field::Subject),
        _ => None,
    })
}
