use super::*;
use std::collections::HashMap;

const COLOR: Type = Type::Record(&[
    ("requests", Type::Int),
    ("error_rate", Type::Double),
    ("p95", Type::Double),
]);
const WORDS: &Vocabulary = &[
    ("candidate", COLOR),
    ("baseline", COLOR),
    ("headers", Type::Map(&Type::String)),
    ("path", Type::String),
];

fn compile(source: &str) -> Result<Condition, Mistake> {
    Condition::compile(source, WORDS)
}

fn color(requests: i64, error_rate: f64, p95: Option<f64>) -> Value {
    let mut fields: HashMap<String, Value> = HashMap::new();
    fields.insert("requests".to_owned(), requests.into());
    fields.insert("error_rate".to_owned(), error_rate.into());
    if let Some(p95) = p95 {
        fields.insert("p95".to_owned(), p95.into());
    }
    fields.into()
}

fn ask(source: &str, candidate: Value, baseline: Value) -> Result<bool, NoAnswer> {
    compile(source).unwrap().holds(|context| {
        context.add_variable_from_value("candidate", candidate);
        context.add_variable_from_value("baseline", baseline);
        context.add_variable_from_value("path", "/api/x".to_owned());
        context.add_variable_from_value("headers", HashMap::from([("x-beta".to_owned(), "1".to_owned())]));
    })
}

#[test]
fn conditions_hold_or_not() {
    let (bad, good) = (color(100, 0.3, Some(0.2)), color(1000, 0.01, Some(0.1)));
    for (source, holds) in [
        (
            "candidate.error_rate > 0.05 && candidate.error_rate > 2.0 * baseline.error_rate",
            true,
        ),
        ("candidate.p95 > 2.0 * baseline.p95", false),
        ("candidate.requests > 50", true),
        ("candidate.error_rate > 0", true),
        ("double(candidate.requests) / 10.0 == 10.0", true),
        ("path.startsWith('/api') && headers['x-beta'] == '1'", true),
        ("path in ['/a', '/b']", false),
        ("has(headers.none) || path.matches('^/api/[a-z]+$')", true),
        ("candidate.requests > 5 ? true : false", true),
        ("!(candidate.requests % 7 == 0)", true),
    ] {
        assert_eq!(ask(source, bad.clone(), good.clone()), Ok(holds), "{source}");
    }
}

#[test]
fn what_is_missing_is_no_answer() {
    let none = color(0, 0.0, None);
    assert_eq!(
        ask("candidate.p95 > 1.0", none.clone(), none.clone()),
        Err(NoAnswer::Missing("p95".to_owned()))
    );
    // One side is enough to say yes.
    assert_eq!(
        ask(
            "candidate.p95 > 1.0 || candidate.requests == 0",
            none.clone(),
            none.clone()
        ),
        Ok(true)
    );
    assert_eq!(
        ask(
            "candidate.p95 > 1.0 && candidate.requests > 0",
            none.clone(),
            none
        ),
        Ok(false)
    );
}

#[test]
fn dividing_by_zero_is_no_answer() {
    let none = color(0, 0.0, None);
    for source in [
        "candidate.error_rate / baseline.error_rate > 2.0",
        "10 / candidate.requests > 2",
        "10 % candidate.requests > 2",
        "(1.0 / (candidate.error_rate / 2.0)) > 0.0",
    ] {
        assert_eq!(
            ask(source, none.clone(), none.clone()),
            Err(NoAnswer::DivisionByZero),
            "{source}"
        );
    }
}

#[test]
fn mistakes_say_what_where_and_what_instead() {
    for (source, part, place, hint) in [
        (
            "candidate.eror_rate > 0.1",
            "no field `eror_rate`",
            "",
            "did you mean `error_rate`?",
        ),
        (
            "candidat.p95 > 0.1",
            "no `candidat`",
            "candidat",
            "did you mean `candidate`?",
        ),
        ("candidate.p95", "of type double", "candidate.p95", "compare"),
        (
            "candidate.p95 > 2 * baseline.p95",
            "`*` does not go with int and double",
            "",
            "doubles",
        ),
        (
            "candidate.p95 > 'x'",
            "does not go with double and string",
            "",
            "",
        ),
        ("candidate.p95 >", "not CEL", "", ""),
        ("frobnicate(path)", "no function `frobnicate`", "", ""),
        ("path.matches('[')", "pattern cannot be used", "'['", ""),
        ("[1, 2].exists(x, x == 1)", "loops", "", ""),
        ("headers.map(h, h)", "loops", "", ""),
        ("", "empty", "", ""),
    ] {
        let mistake = compile(source).unwrap_err();
        assert!(mistake.message.contains(part), "{source}: {}", mistake.message);
        assert!(mistake.span.end <= source.len(), "{source}: {:?}", mistake.span);
        if !place.is_empty() {
            assert_eq!(&source[mistake.span.clone()], place, "{source}");
        }
        assert!(mistake.hint.unwrap_or_default().contains(hint), "{source}");
    }
}

#[test]
fn nothing_long_or_deep_is_parsed_and_nothing_panics() {
    let long = format!("path == '{}'", "x".repeat(1 << 20));
    assert!(compile(&long).unwrap_err().message.contains("4096 bytes"));
    let deep = format!("{}true{}", "(".repeat(10_000), ")".repeat(10_000));
    assert!(compile(&deep).is_err());
    let deep = format!("{}true{}", "(".repeat(1000), ")".repeat(1000));
    assert!(compile(&deep).unwrap_err().message.contains("nested"));
    for source in [
        format!("{}true", "!".repeat(4000)),
        format!("{}1 == 1", "-".repeat(4000)),
        format!("1{} == 1", " + 1".repeat(1000)),
        format!("true{}", " ? true : true".repeat(280)),
        "a".repeat(4000),
        "\u{0}".to_owned(),
        "é == 'ü'".to_owned(),
        "'".to_owned(),
        "\"\\xZZ\" == path".to_owned(),
        "9223372036854775808 > 1".to_owned(),
    ] {
        // Some of these are conditions; all end, and soon.
        let _ = compile(&source);
    }
    assert!(compile(&format!("{}true{}", "(".repeat(30), ")".repeat(30))).is_ok());
}

#[test]
fn paths_are_those_that_are_named() {
    let condition = compile("candidate.p95 > 2.0 * baseline.p95 && size(path) > 1").unwrap();
    let paths: Vec<_> = condition.paths().iter().map(String::as_str).collect();
    assert_eq!(paths, ["baseline.p95", "candidate.p95", "path"]);
    assert!(condition.names("baseline") && !condition.names("headers"));
}
