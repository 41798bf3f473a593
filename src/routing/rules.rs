//! Rules: whether a condition holds for a request.

use std::borrow::Cow;
use std::collections::HashMap;

use http::header::COOKIE;

use super::Asked;
use crate::config::{Field, Rule, Test};
use crate::expr::{Condition, Context, How, NoAnswer, Value};

/// Why a condition says neither yes nor no: the rule is passed over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lack {
    /// The request has not what it asks for: no such header, cookie or parameter. As usual as a "no".
    Missing,
    /// What the request has cannot be used: it is no text, or arithmetic failed. Counted.
    Odd(String),
}

/// Whether a rule's condition holds.
///
/// # Errors
/// It has no answer for this request.
pub fn holds(rule: &Rule, asked: &Asked<'_>) -> Result<bool, Lack> {
    match &rule.native {
        Some(test) => native(test, asked),
        None => interpreted(&rule.when, asked),
    }
}

fn native(test: &Test, asked: &Asked<'_>) -> Result<bool, Lack> {
    match test {
        Test::All(parts) => first(parts, asked, false),
        Test::Any(parts) => first(parts, asked, true),
        Test::Not(of) => native(of, asked).map(|holds| !holds),
        Test::Always(value) => Ok(*value),
        Test::Tls => Ok(asked.tls),
        Test::InNetwork(network) => Ok(asked.client().is_some_and(|ip| network.contains(ip))),
        Test::Text(field, How::IsThere) => match text(field, asked) {
            Ok(_) | Err(Lack::Odd(_)) => Ok(true),
            Err(Lack::Missing) => Ok(false),
        },
        Test::Text(field, how) => text(field, asked).map(|text| is(&text, how)),
    }
}

/// The answer that decides (`false` of all, `true` of any), whatever the others lack; otherwise what one lacks.
fn first(parts: &[Test], asked: &Asked<'_>, decides: bool) -> Result<bool, Lack> {
    let mut lack = None;
    for part in parts {
        match native(part, asked) {
            Ok(holds) if holds == decides => return Ok(decides),
            Ok(_) => {}
            Err(why) => lack = lack.or(Some(why)),
        }
    }
    lack.map_or(Ok(!decides), Err)
}

fn is(text: &str, how: &How) -> bool {
    match how {
        How::Is(wanted) => text == wanted,
        How::IsOneOf(list) => list.iter().any(|wanted| text == wanted),
        How::StartsWith(part) => text.starts_with(part.as_str()),
        How::EndsWith(part) => text.ends_with(part.as_str()),
        How::Contains(part) => text.contains(part.as_str()),
        How::Matches(pattern) => pattern.is_match(text),
        // These are no tests of a text.
        How::IsThere | How::IsTrue | How::InNetwork(_) => false,
    }
}

fn text<'a>(field: &Field, asked: &Asked<'a>) -> Result<Cow<'a, str>, Lack> {
    match field {
        Field::Method => Ok(asked.method.as_str().into()),
        Field::Host => Ok(asked.host.into()),
        Field::Path => Ok(asked.path().into()),
        Field::Scheme => Ok(scheme(asked).into()),
        Field::Query(name) => query(asked)
            .find(|(key, _)| key == name)
            .map(|(_, value)| value)
            .ok_or(Lack::Missing),
        Field::Header(name) => written(asked.headers.get(name).map(http::HeaderValue::as_bytes)),
        Field::Cookie(name) => written(asked.cookie(name)),
        Field::Client => Ok(asked
            .client()
            .map_or_else(String::new, |ip| ip.to_string())
            .into()),
        Field::ServerName => Ok(asked.server_name.unwrap_or_default().into()),
        Field::Subject => written(Some(
            asked.subject.map(http::HeaderValue::as_bytes).unwrap_or_default(),
        )),
    }
}

fn scheme(asked: &Asked<'_>) -> &'static str {
    if asked.is_https() { "https" } else { "http" }
}

fn written(bytes: Option<&[u8]>) -> Result<Cow<'_, str>, Lack> {
    let text = std::str::from_utf8(bytes.ok_or(Lack::Missing)?);
    text.map(Cow::Borrowed)
        .map_err(|_| Lack::Odd("a value that is no text".to_owned()))
}

/// The parameters of the query in order, decoded as forms are (WHATWG URL, application/x-www-form-urlencoded).
fn query<'a>(asked: &Asked<'a>) -> impl Iterator<Item = (Cow<'a, str>, Cow<'a, str>)> {
    let pairs = asked.uri.query().unwrap_or_default().split('&');
    pairs.filter(|pair| !pair.is_empty()).map(|pair| {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        (decoded(key), decoded(value))
    })
}

fn decoded(text: &str) -> Cow<'_, str> {
    if !text.contains(['%', '+']) {
        return text.into();
    }
    let bytes = text.as_bytes();
    let hex = |at: usize| {
        let digit = |at| char::from(*bytes.get(at)?).to_digit(16);
        u8::try_from(digit(at)? * 16 + digit(at + 1)?).ok()
    };
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(byte) = bytes.get(at) {
        match (byte, hex(at + 1)) {
            (b'%', Some(meant)) => {
                out.push(meant);
                at += 2;
            }
            (b'+', _) => out.push(b' '),
            (byte, _) => out.push(*byte),
        }
        at += 1;
    }
    String::from_utf8_lossy(&out).into_owned().into()
}

/// By the interpreter. It wants its own copies, so only what the condition names is copied.
fn interpreted(condition: &Condition, asked: &Asked<'_>) -> Result<bool, Lack> {
    let answer = condition.holds(|context| {
        give(condition, asked, context);
    });
    answer.map_err(|why| match why {
        NoAnswer::Missing(_) => Lack::Missing,
        why => Lack::Odd(why.to_string()),
    })
}

fn give(condition: &Condition, asked: &Asked<'_>, context: &mut Context<'_, '_>) {
    let mut request: HashMap<String, Value> = HashMap::new();
    let mut put = |name: &str, value: &dyn Fn() -> Value| {
        if condition.names(&format!("request.{name}")) {
            request.insert(name.to_owned(), value());
        }
    };
    put("method", &|| asked.method.as_str().to_owned().into());
    put("host", &|| asked.host.to_owned().into());
    put("path", &|| asked.path().to_owned().into());
    put("scheme", &|| scheme(asked).to_owned().into());
    put("query", &|| map(query(asked)));
    put("headers", &|| map(headers(asked)));
    put("cookies", &|| map(cookies(asked)));
    context.add_variable_from_value("request", Value::from(request));
    let address = asked.client().map_or_else(String::new, |ip| ip.to_string());
    let client = HashMap::from([("address".to_owned(), Value::from(address))]);
    context.add_variable_from_value("client", Value::from(client));
    let subject = asked.subject.and_then(|subject| subject.to_str().ok());
    let tls = HashMap::from([
        ("used".to_owned(), Value::from(asked.tls)),
        (
            "server_name".to_owned(),
            asked.server_name.unwrap_or_default().to_owned().into(),
        ),
        (
            "subject".to_owned(),
            subject.unwrap_or_default().to_owned().into(),
        ),
    ]);
    context.add_variable_from_value("tls", Value::from(tls));
}

/// The first of each name.
fn map<'a>(pairs: impl Iterator<Item = (Cow<'a, str>, Cow<'a, str>)>) -> Value {
    let mut map: HashMap<String, Value> = HashMap::new();
    for (key, value) in pairs {
        map.entry(key.into_owned())
            .or_insert_with(|| value.into_owned().into());
    }
    map.into()
}

fn headers<'a>(asked: &Asked<'a>) -> impl Iterator<Item = (Cow<'a, str>, Cow<'a, str>)> {
    let texts = |(name, value): (&'a http::HeaderName, &'a http::HeaderValue)| {
        Some((
            name.as_str().into(),
            std::str::from_utf8(value.as_bytes()).ok()?.into(),
        ))
    };
    asked.headers.iter().filter_map(texts)
}

fn cookies<'a>(asked: &Asked<'a>) -> impl Iterator<Item = (Cow<'a, str>, Cow<'a, str>)> {
    let fields = asked.headers.get_all(COOKIE).iter();
    let pairs = fields.flat_map(|field| field.as_bytes().split(|byte| *byte == b';'));
    pairs.filter_map(|pair| {
        let (name, value) = std::str::from_utf8(pair).ok()?.trim_ascii().split_once('=')?;
        Some((name.into(), value.into()))
    })
}

#[cfg(test)]
mod tests;
