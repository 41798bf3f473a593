//! An app that answers under its own name: what it says of itself in `Location` and `Set-Cookie` becomes the client's.

use http::header::{HOST, HeaderMap, HeaderValue, LOCATION, SET_COOKIE};
use http::uri::Authority;

use super::origin::{X_FORWARDED_HOST, X_FORWARDED_PROTO};

/// The two names of one place.
#[derive(Debug)]
pub(super) struct Names {
    /// The `Host` that the app was asked with.
    app: String,
    /// The host that the client asked for, its port included.
    client: String,
    scheme: String,
    /// What was taken off the path.
    prefix: String,
}

impl Names {
    /// From a request's head as the app gets it. None where there is nothing to change.
    pub(super) fn of(headers: &HeaderMap, strip: Option<&str>) -> Option<Box<Self>> {
        let text = |name| headers.get(name)?.to_str().ok();
        let (app, client) = (text(HOST)?, text(X_FORWARDED_HOST)?);
        // A chain of proxies may have made a list of it: the first is what the client asked for.
        let client = client.split(',').next().unwrap_or_default().trim();
        if client.is_empty() || (app.eq_ignore_ascii_case(client) && strip.is_none()) {
            return None;
        }
        let scheme = text(X_FORWARDED_PROTO).and_then(|list| list.split(',').next());
        Some(Box::new(Self {
            app: app.to_ascii_lowercase(),
            client: client.to_owned(),
            scheme: scheme
                .map(str::trim)
                .filter(|scheme| *scheme == "https")
                .unwrap_or("http")
                .to_owned(),
            prefix: strip.unwrap_or_default().to_owned(),
        }))
    }

    /// Change an answer's head.
    pub(super) fn rewrite(&self, headers: &mut HeaderMap) {
        if let Some(new) = headers.get(LOCATION).and_then(|value| self.location(value)) {
            headers.insert(LOCATION, new);
        }
        if headers.contains_key(SET_COOKIE) {
            let all: Vec<_> = headers
                .get_all(SET_COOKIE)
                .iter()
                .map(|value| self.cookie(value))
                .collect();
            headers.remove(SET_COOKIE);
            for value in all {
                headers.append(SET_COOKIE, value);
            }
        }
    }

    fn location(&self, value: &HeaderValue) -> Option<HeaderValue> {
        let text = value.to_str().ok()?;
        let scheme = ["http://", "https://", "//"].into_iter().find(|scheme| {
            let start = text.get(..scheme.len());
            start.is_some_and(|start| start.eq_ignore_ascii_case(scheme))
        })?;
        let rest = &text[scheme.len()..];
        let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        let (authority, target) = rest.split_at(end);
        if !same_place(authority, &self.app, scheme) {
            return None;
        }
        let (own, client, prefix) = (&self.scheme, &self.client, &self.prefix);
        let slash = if prefix.is_empty() || target.starts_with('/') {
            ""
        } else {
            "/"
        };
        let scheme = if scheme == "//" {
            "//".to_owned()
        } else {
            format!("{own}://")
        };
        HeaderValue::try_from(format!("{scheme}{client}{prefix}{slash}{target}")).ok()
    }

    /// `Domain` is the app's own name: then the client's. Another one is none of ours.
    fn cookie(&self, value: &HeaderValue) -> HeaderValue {
        let rewritten = value.to_str().ok().and_then(|text| {
            let mut changed = false;
            let parts: Vec<String> = text
                .split(';')
                .enumerate()
                .map(|(at, part)| {
                    let domain = part
                        .split_once('=')
                        .filter(|(name, _)| at > 0 && name.trim().eq_ignore_ascii_case("domain"));
                    match domain {
                        Some((_, domain))
                            if without_port(&self.app)
                                .eq_ignore_ascii_case(domain.trim().trim_start_matches('.')) =>
                        {
                            changed = true;
                            format!(" Domain={}", without_port(&self.client))
                        }
                        _ => part.to_owned(),
                    }
                })
                .collect();
            changed.then(|| parts.join(";"))
        });
        rewritten
            .and_then(|text| HeaderValue::try_from(text).ok())
            .unwrap_or_else(|| value.clone())
    }
}

/// Whether an authority is the app's; a port that the scheme implies may be left out of either.
fn same_place(authority: &str, app: &str, scheme: &str) -> bool {
    let usual = if scheme.eq_ignore_ascii_case("https://") {
        ":443"
    } else {
        ":80"
    };
    let bare = |text: &str| text.strip_suffix(usual).unwrap_or(text).to_ascii_lowercase();
    bare(authority) == bare(app)
}

fn without_port(authority: &str) -> &str {
    match authority.parse::<Authority>() {
        Ok(parsed) => &authority[..parsed.host().len()],
        Err(_) => authority,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test panics to fail")]
mod tests {
    use super::*;

    fn names(app: &str, client: &str, strip: Option<&str>) -> Names {
        let mut headers = HeaderMap::new();
        headers.insert(HOST, HeaderValue::try_from(app).unwrap());
        headers.insert(X_FORWARDED_HOST, HeaderValue::try_from(client).unwrap());
        headers.insert(X_FORWARDED_PROTO, HeaderValue::from_static("https"));
        *Names::of(&headers, strip).unwrap()
    }

    #[test]
    fn locations() {
        let of = |names: &Names, text: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(LOCATION, HeaderValue::from_static(text));
            names.rewrite(&mut headers);
            headers[LOCATION].to_str().unwrap().to_owned()
        };
        let plain = names("mina-green.example:8080", "shop.test:8443", None);
        assert_eq!(
            of(&plain, "http://mina-green.example:8080/a?b#c"),
            "https://shop.test:8443/a?b#c"
        );
        assert_eq!(
            of(&plain, "HTTP://MINA-green.example:8080"),
            "https://shop.test:8443"
        );
        assert_eq!(of(&plain, "//mina-green.example:8080/a"), "//shop.test:8443/a");
        for same in [
            "/a",
            "a/b",
            "http://mina-green.example/a",
            "https://other.test/",
            "http://mina-green.example:80801/",
            "",
        ] {
            assert_eq!(of(&plain, same), same);
        }
        let usual = names("mina.example", "shop.test", Some("/api"));
        assert_eq!(
            of(&usual, "https://mina.example:443/x"),
            "https://shop.test/api/x"
        );
        assert_eq!(of(&usual, "http://mina.example"), "https://shop.test/api/");
        assert_eq!(of(&usual, "http://mina.example?q"), "https://shop.test/api/?q");
    }

    #[test]
    fn cookies() {
        let names = names("mina.example:8080", "shop.test:8443", None);
        let mut headers = HeaderMap::new();
        for cookie in [
            "a=1; Domain=mina.example; Path=/",
            "b=2; domain=.MINA.example",
            "domain=mina.example; Secure",
            "c=3; Domain=example",
        ] {
            headers.append(SET_COOKIE, HeaderValue::from_static(cookie));
        }
        names.rewrite(&mut headers);
        let all: Vec<_> = headers.get_all(SET_COOKIE).iter().collect();
        assert_eq!(
            all,
            [
                "a=1; Domain=shop.test; Path=/",
                "b=2; Domain=shop.test",
                "domain=mina.example; Secure",
                "c=3; Domain=example"
            ]
        );
    }

    #[test]
    fn one_name_needs_no_change() {
        let mut headers = HeaderMap::new();
        headers.insert(HOST, HeaderValue::from_static("a"));
        headers.insert(X_FORWARDED_HOST, HeaderValue::from_static("A"));
        assert!(Names::of(&headers, None).is_none());
    }
}
