//! Who goes where: what its tables mean, and what is wrong with them.

use super::mistakes::found_as_told;
use super::{BASE, good};
use crate::config::{AffinityKey, diff};

#[test]
fn mistakes_are_found_with_their_places() {
    #[rustfmt::skip]
    found_as_told(&[
        ("bad_value", "[app.web.affinity]\nkey = §\"cokie\"", "`key` cannot be `cokie`", "did you mean `cookie`?"),
        ("bad_value", "[app.web.affinity]\nkey = §\"\"", "`key` cannot be", "`header:NAME`"),
        ("bad_value", "[app.web.affinity]\nkey = §\"query:x\"", "`key` cannot be `query:x`", "`cookie:NAME`"),
        ("bad_value", "[app.web.affinity]\nkey = §\"header:\"", "letters, digits and `-`", ""),
        ("bad_value", "[app.web.affinity]\nkey = §\"header:x user\"", "letters, digits and `-`", ""),
        ("bad_value", "[app.web.affinity]\nkey = §\"cookie:a=b\"", "a cookie's name", ""),
        ("unknown_key", "[app.web.affinity]\n§kay = \"ip\"", "in `[app.web.affinity]`", "did you mean `key`?"),
        ("wrong_type", "[app.web.affinity]\nkey = §1", "must be a string", ""),
        ("bad_condition", "[[app.web.rule]]\ncolor = \"green\"\nwhen = 'request§.pth == \"/\"'", "no field `pth`", "did you mean `path`?"),
        ("bad_condition", "[[app.web.rule]]\ncolor = \"green\"\nwhen = '§request.path'", "of type string", ""),
        ("bad_condition", "[[app.web.rule]]\ncolor = \"green\"\nwhen = '§size(request.path)'", "of type int", ""),
        ("bad_condition", "[[app.web.rule]]\ncolor = \"green\"\nwhen = §'request.headers[\"X-Beta\"] == \"1\"'", "names are in lower case", ""),
        ("bad_condition", "[[app.web.rule]]\ncolor = \"green\"\nwhen = §'client.address.inNetwork(\"10.0.0.0/33\")'", "`10.0.0.0/33` is no network", ""),
        ("bad_condition", "[[app.web.rule]]\ncolor = \"green\"\nwhen = §'size(request.path) > 3 && request.path.matches(\"a\")'", "`matches` does not go together", "two rules"),
        ("bad_value", "[app.web.failover]\nafter = §\"5\"", "the unit is missing", ""),
        ("wrong_type", "[app.web.failover]\nauto = §\"yes\"", "must be a boolean", ""),
        ("bad_value", "[app.web.skew]\npaths = [§\"/a/*/b\"]", "`*` stands at the end only", ""),
        ("bad_value", "[app.web.skew]\npaths = [§\"assets\"]", "a path starts with `/`", ""),
        ("bad_value", "[app.web.mirror]\nmethods = [§\"POST\"]", "may change something", ""),
        ("out_of_range", "[app.web.mirror]\npercent = §101", "must be 0 to 100", ""),
        ("out_of_range", "[app.web.hold]\nrequests = §0", "must be 1 to 1000000", ""),
        ("out_of_range", "[app.web.hold]\nbytes = §\"0\"", "`bytes` must be 1 to", ""),
        ("unknown_key", "[app.web.hold]\n§rate = 1", "in `[app.web.hold]`", ""),
        ("missing_key", "§[[app.web.rule]]\nwhen = \"true\"", "needs `color`", ""),
        ("bad_value", "[[app.web.rule]]\nwhen = \"true\"\ncolor = §\"purple\"", "`color` cannot be `purple`", ""),
        ("bad_value", "[app.web.preview]\nfrom = [§\"10.0.0.0/40\"]", "32 at most", ""),
        ("bad_value", "[app.web.preview]\nheader = §\"connection\"", "belongs to the connection", ""),
        ("bad_value", "[app.web.preview]\ncookie = §\"a b\"", "a cookie's name", ""),
        ("unknown_key", "[app.web.preview]\n§form = []", "in `[app.web.preview]`", "did you mean `from`?"),
        ("bad_value", "[[listener]]\naddress = \"127.0.0.1:0\"\ncolor = §\"gren\"", "`color`", "did you mean `green`?"),
    ]);
}

#[test]
fn a_client_is_known_by_what_the_file_says() {
    let key = |text: &str| {
        let config = good(&format!("{BASE}[app.web.affinity]\nkey = \"{text}\"\n"));
        config.apps["web"].traffic.affinity.clone()
    };
    assert_eq!(good(BASE).apps["web"].traffic.affinity, AffinityKey::Ours);
    for text in ["cookie", "ip", "none", "header:x-user", "cookie:Session"] {
        assert_eq!(key(text).to_string(), text);
    }
    assert_eq!(key("header:X-User").to_string(), "header:x-user");
}

#[test]
fn a_reload_tells_what_changed() {
    let by_ip = good(&format!("{BASE}[app.web.affinity]\nkey = \"ip\"\n"));
    assert_eq!(diff(&good(BASE), &by_ip), ["app.web.affinity.key: cookie → ip"]);
}
