//! W3C trace context: what is valid, and a new trace where the operator wants one.

use http::{HeaderMap, HeaderName, HeaderValue};

use super::request_id::RequestIds;
use crate::config::Trace;

pub(super) const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

/// The trace id of a valid `traceparent` (Trace Context §3.2): two digits of version, 32 of the trace, 16 of the
/// parent, two of flags. A later version may have more behind another `-`.
pub(super) fn trace_id(traceparent: &[u8]) -> Option<&[u8]> {
    let (version, rest) = digits(traceparent, 2)?;
    let (id, rest) = digits(rest.strip_prefix(b"-")?, 32)?;
    let (parent, rest) = digits(rest.strip_prefix(b"-")?, 16)?;
    let (_, rest) = digits(rest.strip_prefix(b"-")?, 2)?;
    let whole = rest.is_empty() || (version != b"00" && rest.starts_with(b"-"));
    let is_zero = |digits: &[u8]| digits.iter().all(|digit| *digit == b'0');
    (whole && version != b"ff" && !is_zero(id) && !is_zero(parent)).then_some(id)
}

/// Lower-case hexadecimal digits alone are valid.
fn digits(text: &[u8], count: usize) -> Option<(&[u8], &[u8])> {
    let (digits, rest) = text.split_at_checked(count)?;
    let valid = digits
        .iter()
        .all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f'));
    valid.then_some((digits, rest))
}

/// Begin a trace where the rules say so. The request's id is the trace's too, if it has that form: one search finds
/// both.
pub(super) fn begin(
    headers: &mut HeaderMap,
    rule: Trace,
    from_trusted: bool,
    id: Option<&HeaderValue>,
    ids: &RequestIds,
) {
    let goes_on = match rule {
        Trace::Pass => true,
        Trace::Start => is_valid(headers),
        Trace::Restart => from_trusted && is_valid(headers),
    };
    if goes_on {
        return;
    }
    // It belongs to the trace that is not continued (§3.3).
    headers.remove(TRACESTATE);
    let (other, parent) = (ids.next(), ids.next());
    let of_id = id.map(HeaderValue::as_bytes).filter(|id| is_trace_id(id));
    let trace = of_id.unwrap_or(other.as_bytes());
    let parent = &parent.as_bytes()[16..];
    // Sampled: apps that follow their parent would record nothing of it otherwise.
    let value = [b"00-", trace, b"-", parent, b"-01"].concat();
    if let Ok(value) = HeaderValue::from_bytes(&value) {
        headers.insert(TRACEPARENT, value);
    }
}

fn is_trace_id(id: &[u8]) -> bool {
    digits(id, 32).is_some_and(|(id, rest)| rest.is_empty() && id.iter().any(|digit| *digit != b'0'))
}

fn is_valid(headers: &HeaderMap) -> bool {
    let mut all = headers.get_all(TRACEPARENT).iter();
    let first = all
        .next()
        .is_some_and(|value| trace_id(value.as_bytes()).is_some());
    first && all.next().is_none()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test panics to fail")]
mod tests {
    use super::*;

    const ID: &str = "0af7651916cd43dd8448eb211c80319c";

    #[test]
    fn what_is_valid() {
        let of = |text: &str| trace_id(text.as_bytes()).map(|id| String::from_utf8(id.to_vec()).unwrap());
        let good = format!("00-{ID}-b7ad6b7169203331-01");
        assert_eq!(of(&good).as_deref(), Some(ID));
        assert_eq!(
            of(&format!("cc-{ID}-b7ad6b7169203331-01-what-comes")).as_deref(),
            Some(ID)
        );
        for bad in [
            format!("00-{ID}-b7ad6b7169203331-01-more"),
            format!("cc-{ID}-b7ad6b7169203331-01more"),
            format!("ff-{ID}-b7ad6b7169203331-01"),
            format!("00-{}-b7ad6b7169203331-01", "0".repeat(32)),
            format!("00-{ID}-0000000000000000-01"),
            good.to_uppercase(),
            format!("{good} "),
            good.replace('-', "_"),
            good[1..].to_owned(),
            good[..54].to_owned(),
            String::new(),
        ] {
            assert_eq!(of(&bad), None, "{bad}");
        }
    }

    #[test]
    fn a_trace_begins_where_the_rule_says_so() {
        let ids = RequestIds::new();
        let good = format!("00-{ID}-b7ad6b7169203331-00");
        let begun = |sent: &[&str], rule, trusted, id: Option<&HeaderValue>| {
            let mut headers = HeaderMap::new();
            for value in sent {
                headers.append(TRACEPARENT, HeaderValue::try_from(*value).unwrap());
            }
            headers.insert(TRACESTATE, HeaderValue::from_static("a=b"));
            begin(&mut headers, rule, trusted, id, &ids);
            let all: Vec<_> = headers
                .get_all(TRACEPARENT)
                .iter()
                .map(|value| value.to_str().unwrap().to_owned())
                .collect();
            (all.join(" "), headers.contains_key(TRACESTATE))
        };
        assert_eq!(
            begun(&["nonsense"], Trace::Pass, false, None),
            ("nonsense".into(), true)
        );
        assert_eq!(begun(&[&good], Trace::Start, false, None), (good.clone(), true));
        assert_eq!(begun(&[&good], Trace::Restart, true, None), (good.clone(), true));
        for (sent, rule) in [
            (vec![], Trace::Start),
            (vec!["nonsense"], Trace::Start),
            (vec![good.as_str(), good.as_str()], Trace::Start),
            (vec![good.as_str()], Trace::Restart),
        ] {
            let (new, state) = begun(&sent, rule, false, None);
            assert!(
                trace_id(new.as_bytes()).is_some() && new != good && !state,
                "{new}"
            );
            assert!(new.ends_with("-01"));
        }
        let id = HeaderValue::from_static(ID);
        assert!(
            begun(&[], Trace::Start, false, Some(&id))
                .0
                .starts_with(&format!("00-{ID}-"))
        );
        let id = HeaderValue::from_static("mine");
        assert!(trace_id(begun(&[], Trace::Start, false, Some(&id)).0.as_bytes()).is_some());
    }
}
