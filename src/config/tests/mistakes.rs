//! Each kind of mistake: its code, its place, its hint.

use super::{BASE, bad, good, none};
use crate::config::{Diagnostics, parse};

/// Code, the mistake after [`BASE`] with `§` before the place of the caret, and a part of the message and hint.
#[rustfmt::skip]
const AFTER_BASE: &[(&str, &str, &str, &str)] = &[
    // Keys.
    ("unknown_key", "[§serverr]", "unknown key `serverr` in the file", "did you mean `server`?"),
    ("unknown_key", "[server]\n§worker = 1", "in `[server]`", "did you mean `workers`?"),
    ("unknown_key", "[server]\n§zzzzzz = 1", "`zzzzzz`", "known here: workers, state_dir"),
    ("unknown_key", "[app.web.health]\n§intervall = \"1s\"", "in `[app.web.health]`", "did you mean `interval`?"),
    ("unknown_key", "[app.b]\nblue = [\"h:1\"]\nhosts = [\"b\"]\n§interval = \"1s\"", "in `[app.b]`", "belongs in `[app.b.health]`"),
    ("unknown_key", "[app.b]\nblue = [\"h:1\"]\nhosts = [\"b\"]\n§intervall = \"1s\"", "in `[app.b]`", "did you mean `interval` (in `[app.b.health]`)"),
    ("unknown_key", "[[§listeners]]\naddress = \"x\"", "`listeners`", "write `[[listener]]`"),
    ("unknown_key", "[[admin.token]]\nname = \"a\"\nrole = \"admin\"\nfile = \"f\"\n§files = 1", "in `[[admin.token]]`", "did you mean `file`?"),
    ("duplicate_key", "[server]\nworkers = 1\n§workers = 2", "duplicate key", ""),
    ("missing_key", "§[[listener]]", "`[[listener]]` needs `address`", "add `address = …`"),
    ("missing_key", "§[[admin.token]]\nname = \"a\"\nrole = \"admin\"", "needs `file`", ""),
    // Documented, but of a later version.
    ("not_built", "[§fleet]\nprefix = \"x\"", "`[fleet]` is not built", ""),
    ("missing_key", "[app.web.health]\npath = \"/\"\nidentity = §true", "nothing says which revision answers", "`revision_header = "),
    ("conflicting_keys", "[app.b]\nhosts = [\"b\"]\nblue = [\"h:1\"]\nrevision_header = \"x\"\nhealth.identity = §true", "`identity` has no effect", ""),
    ("conflicting_keys", "[app.b]\nhosts = [\"b\"]\nblue = [\"h:1\"]\nrevision_header = \"x\"\nrevision_json = §\"/v\"", "two places for one thing", ""),
    ("bad_value", "[app.b]\nhosts = [\"b\"]\nblue = [\"h:1\"]\nrevision_json = §\"version\"", "`revision_json`", ""),
    ("bad_value", "[app.web.health]\npath = \"/\"\nidentity = §\"yes\"", "cannot be `yes`", ""),
    ("unknown_key", "[app.web.health]\npath = \"/\"\n§revision_header = \"x\"", "in `[app.web.health]`", "belongs in `[app.web]`"),
    ("conflicting_keys", "[app.web.health]\nkind = §\"grpc\"", "needs HTTP/2, and `127.0.0.1:8001` is HTTP/1.1", "`h2c://127.0.0.1:8001`"),
    ("conflicting_keys", "[app.web.health]\npath = \"/\"\ngrpc_service = §\"shop\"", "no effect without `kind = \"grpc\"`", ""),
    ("bad_endpoint", "[app.b]\nhosts = [\"b\"]\nblue = [§\"https://unix:/h\"]", "a Unix socket has no name", ""),
    ("bad_value", "[app.b]\nhosts = [\"b\"]\nblue = [\"https://h:1\"]\ntls.server_name = §\"h:1\"", "no scheme and no port", ""),
    ("missing_key", "[app.b]\nhosts = [\"b\"]\nblue = [\"https://h:1\"]\ntls.client_cert = §\"a.pem\"", "belong together", "set both"),
    ("out_of_range", "[limits]\nh2_streams = §0", "must be 1 to 100000", ""),
    ("bad_endpoint", "[app.b]\nhosts = [\"b\"]\nblue = [§\"h2c://h\"]", "behind `h2c://`: it has no port", ""),
    // Types.
    ("wrong_type", "[server]\nworkers = §\"4\"", "`workers` must be an integer, not a string", "without quotes: `4`"),
    ("wrong_type", "[server]\nshutdown_grace = §5", "must be a string, not an integer", "with a unit: `\"5s\"`"),
    ("wrong_type", "[server]\nrequire_state = §\"true\"", "must be a boolean", "without quotes: `true`"),
    ("wrong_type", "[app.b]\nhosts = [\"b\"]\nblue = §\"h:1\"", "must be an array, not a string", "in brackets: `[\"h:1\"]`"),
    ("wrong_type", "[app.b]\nhosts = [§1]\nblue = [\"h:1\"]", "`hosts` must be a string", "in quotes: `\"1\"`"),
    ("wrong_type", "[limits]\nbody_bytes = §1.5", "a string or an integer, not a float", ""),
    ("wrong_type", "[log]\nlevel = §1979-01-01", "not a datetime", ""),
    ("wrong_type", "[app.web.health]\npath = \"/\"\njson = { \"/a\" = §1979-01-01 }", "cannot be compared with JSON", ""),
    ("wrong_type", "[app.web.health]\npath = \"/\"\njson = { \"/a\" = §nan }", "cannot be compared with JSON", ""),
    // Ranges.
    ("out_of_range", "[server]\nworkers = §-1", "must be 0 to 1024, not -1", ""),
    ("out_of_range", "[server]\nworkers = §99999999999999999999", "must be 0 to 1024", ""),
    ("out_of_range", "[app.web.health]\nrise = §0", "must be 1 to 1000, not 0", ""),
    ("out_of_range", "[app.web.health]\ninterval = §\"0\"", "`interval` must not be 0", ""),
    ("out_of_range", "[app.web.health]\ninterval = §\"1ms\"", "10 ms or more", ""),
    ("out_of_range", "[app.web.switch]\nverify = §101", "must be 0 to 100, not 101", ""),
    ("out_of_range", "[app.web.balance]\nmax_in_flight = §-1", "must be 0 to 1000000, not -1", ""),
    ("out_of_range", "[app.web.balance]\nqueue_timeout = §\"0s\"", "must not be 0", ""),
    ("unknown_key", "[app.web.balance]\n§max_inflight = 1", "in `[app.web.balance]`", "did you mean `max_in_flight`?"),
    ("out_of_range", "[app.web.timeouts]\nconnect = §\"0s\"", "must not be 0", ""),
    ("out_of_range", "[limits]\nuri_bytes = §\"1MiB\"", "must be 16 to 65534 bytes, not 1048576", ""),
    ("out_of_range", "[limits]\nbody_bytes = §-1", "must be 0 or more, not -1", ""),
    // Values.
    ("bad_value", "[server]\nshutdown_grace = §\"5\"", "the unit is missing: `5s`?", ""),
    ("bad_value", "[server]\nshutdown_grace = §\"5 parsecs\"", "write a number and a unit", ""),
    ("bad_value", "[server]\nstate_dir = §\"\"", "the path is empty", ""),
    ("bad_value", "[server]\ntrusted_proxies = [\"10.0.0.0/8\", §\"10.0.0.0/33\"]", "32 at most", ""),
    ("bad_value", "[limits]\nheader_bytes = §\"64k\"", "`64KiB`", ""),
    ("bad_value", "[[listener]]\naddress = §\"localhost:80\"", "an address is needed, not a name: `127.0.0.1:80`", ""),
    ("bad_value", "[[listener]]\naddress = §\":80\"", "`0.0.0.0:80`", ""),
    ("bad_value", "[errors]\npages = { §\"600\" = \"a.html\" }", "\"4xx\" and \"5xx\"", ""),
    ("bad_value", "[errors]\npages = { \"503\" = §\"a.php\" }", "`.html`, `.txt` or `.json`", ""),
    ("bad_value", "[docker]\nproject = §\"\"", "leave it out for any", ""),
    ("unknown_key", "[docker]\n§projekt = \"a\"", "in `[docker]`", "did you mean `project`?"),
    ("bad_value", "[errors]\nproblem = §\"sometimes\"", "cannot be `sometimes`", "auto"),
    ("out_of_range", "[app.web.errors]\nmaintenance.retry_after = §\"10ms\"", "1000 ms or more", ""),
    ("missing_key", "[[listener]]\naddress = \"127.0.0.1:0\"\nrespond = [§{ status = 200 }]", "needs `path`", ""),
    ("bad_value", "[[listener]]\naddress = \"127.0.0.1:0\"\nrespond = [{ path = §\"health\" }]", "starts with `/`: `/health`", ""),
    ("out_of_range", "[[listener]]\naddress = \"127.0.0.1:0\"\nrespond = [{ path = \"/a\", status = §101 }]", "must be 200 to 599", ""),
    ("conflicting_keys", "[[listener]]\naddress = \"127.0.0.1:0\"\nrespond = [{ path = \"/a\", status = 204, body = §\"x\" }]", "204 has no body", ""),
    ("duplicate_match", "[[listener]]\naddress = \"127.0.0.1:0\"\nrespond = [{ path = \"/a\" }, { path = §\"/a\" }]", "answered twice", ""),
    ("bad_value", "[[listener]]\naddress = \"127.0.0.1:0\"\nrespond = [{ path = \"/a\", headers = { §\"content-length\" = \"1\" } }]", "belongs to the connection", ""),
    ("bad_value", "[app.web.headers]\nrequest_id = §\"a b\"", "a header name has", ""),
    ("conflicting_keys", "[app.b]\nhosts = [\"b\"]\nblue = [\"h2c://h:1\"]\nsend_proxy_protocol = §\"v2\"", "streams of all clients share", "HTTP/1.1"),
    ("bad_value", "[app.b]\nhosts = [\"b\"]\nblue = [\"h:1\"]\nsend_proxy_protocol = §\"v3\"", "cannot be `v3`", "v1"),
    ("bad_value", "[app.web.headers]\ntrace = §\"started\"", "cannot be `started`", "did you mean `start`?"),
    ("bad_value", "[admin]\naddress = §\"unix:/x\"", "write `ADDRESS:PORT`", ""),
    ("bad_value", "[admin]\nmode = §\"rw\"", "not a file mode", "\"0660\""),
    ("bad_value", "[log]\naccess = §\"jsno\"", "`access` cannot be `jsno`", "did you mean `json`?"),
    ("bad_value", "[log]\nlevel = §\"infos\"", "`level` cannot be `infos`", "did you mean `info`?"),
    ("bad_value", "[app.b]\nhosts = [§\"*.*.b\"]\nblue = [\"h:1\"]", "`*` is allowed once", ""),
    ("bad_value", "[app.b]\nhosts = [§\"b:80\"]\nblue = [\"h:1\"]", "a host has no port", ""),
    ("bad_value", "[app.b]\nhosts = [\"b\"]\nblue = [\"h:1\"]\ninitial = §\"greeen\"", "cannot be `greeen`", "did you mean `green`?"),
    ("bad_value", "[app.§\"a/b\"]\nhosts = [\"b\"]\nblue = [\"h:1\"]", "a name has 1 to 63", ""),
    ("bad_value", "[app.web.health]\npath = §\"healthz\"", "starts with `/`: `/healthz`", ""),
    ("bad_value", "[app.web.health]\npath = \"/\"\nstatus = §\"299-200\"", "backwards", ""),
    ("bad_value", "[app.web.health]\npath = \"/\"\nbody_regex = §\"(\"", "unclosed group", ""),
    ("bad_value", "[app.web.health]\npath = \"/\"\nbody_regex = §\"a{1000}{1000}\"", "the pattern is too large", ""),
    ("bad_value", "[app.web.health]\npath = \"/\"\njson = { §status = \"ok\" }", "a JSON pointer starts with `/`: `/status`", ""),
    ("bad_value", "[app.web.headers]\nrequest.set = { §\"a b\" = \"c\" }", "a header name has", ""),
    ("bad_value", "[app.web.headers]\nrequest.set = { §Host = \"c\" }", "a key of its own", ""),
    ("bad_value", "[app.web.headers]\nresponse.set = { §Content-Length = \"1\" }", "belongs to the connection", ""),
    ("bad_value", "[app.web.headers]\nresponse.remove = [§\"transfer-encoding\"]", "belongs to the connection", ""),
    ("bad_value", "[app.web.headers]\nrequest.set = { a = §\"b\\r\\nc: d\" }", "a header value has", ""),
    ("bad_value", "[app.web.headers]\nexpose_color = §\"a:b\"", "a header name has", ""),
    ("bad_value", "[app.web.headers]\nhost = §\"preserved/\"", "not part of a host name", ""),
    ("bad_endpoint", "[app.b]\nhosts = [\"b\"]\nblue = [§\"web\"]", "it has no port: write `web:8000`", ""),
    // Variables.
    ("unset_variable", "[log]\nfile = §\"${NOT_SET}/x\"", "`NOT_SET` is not set", "$${NOT_SET}"),
    ("bad_variable", "[log]\nfile = §\"${NOT SET}\"", "`${`", "write `$${`"),
    ("bad_variable", "[log]\nfile = §\"a${\"", "`${`", "write `$${`"),
    // What one value means for another.
    ("conflicting_keys", "[[listener]]\naddress = \"127.0.0.1:0\"\nproxy_protocol = §true", "every connection would be closed", "trusted_proxies"),
    ("conflicting_keys", "[server]\ntrusted_proxies = [\"::1\"]\n[[listener]]\naddress = \"unix:/a\"\nproxy_protocol = §true", "every connection would be closed", "unix:"),
    ("duplicate_listener", "[[listener]]\naddress = \"127.0.0.1:80\"\n[[listener]]\naddress = §\"127.0.0.1:80\"", "is taken", ""),
    ("duplicate_listener", "[[listener]]\naddress = \"127.0.0.1:80\"\n[[listener]]\naddress = §\"0.0.0.0:80\"", "another listener has `127.0.0.1:80`", ""),
    ("duplicate_listener", "[admin]\naddress = \"127.0.0.1:80\"\n[[listener]]\naddress = §\"127.0.0.1:80\"", "the admin address has", ""),
    ("duplicate_listener", "[[listener]]\naddress = \"unix:/a\"\n[[listener]]\naddress = §\"unix:/a\"", "is taken", ""),
    ("missing_key", "[[listener]]\naddress = \"127.0.0.1:0\"\n§[listener.tls]\nmin_version = \"1.3\"", "`[listener.tls]` needs `certificates`", ""),
    ("missing_key", "[[listener]]\naddress = \"127.0.0.1:0\"\n[listener.tls]\ncertificates = [§{ cert = \"a\" }]", "needs `key`", ""),
    ("missing_key", "[[listener]]\naddress = \"127.0.0.1:0\"\n[listener.tls]\ncertificates = §[]", "needs `certificates`", ""),
    ("bad_value", "[[listener]]\naddress = \"127.0.0.1:0\"\n[listener.tls]\nmin_version = §\"1.1\"\ncertificates = [{ cert = \"a\", key = \"b\" }]", "cannot be `1.1`", "1.2"),
    ("bad_value", "[[listener]]\naddress = \"127.0.0.1:0\"\nredirect_https = §303", "cannot be 303", "301, 302, 307 or 308"),
    ("conflicting_keys", "[[listener]]\naddress = \"127.0.0.1:0\"\nredirect_https = §308\n[listener.tls]\ncertificates = [{ cert = \"a\", key = \"b\" }]", "in a circle", "clear text"),
    ("conflicting_keys", "[[listener]]\naddress = \"127.0.0.1:0\"\n[listener.tls]\ncertificates = [{ cert = \"a\", key = \"b\" }, { cert = §\"a\", key = \"b\" }]", "in the list twice", ""),
    ("duplicate_match", "[app.§x]\nblue = [\"h:1\"]", "the prefix `/` on any host is answered by `web/web` already", ""),
    ("duplicate_match", "[app.x]\nhosts = [\"a\", §\"A\"]\nblue = [\"h:1\"]", "`a` is in the list twice", ""),
    ("duplicate_match", "[app.x.service.a]\npath = \"/a\"\nblue = [\"h:1\"]\n[app.x.service.b]\npath = §\"/a\"\nblue = [\"h:1\"]", "the path `/a` on any host is answered by `x/a`", ""),
    ("duplicate_match", "[app.x.service.a]\npath_prefix = \"/a\"\nblue = [\"h:1\"]\n[app.x.service.b]\npath_prefix = §\"/a/\"\nblue = [\"h:1\"]", "the prefix `/a`", ""),
    ("duplicate_name", "[admin]\ntoken_file = \"a\"\n[[admin.token]]\nname = §\"token\"\nrole = \"viewer\"\nfile = \"b\"", "two tokens are called `token`", ""),
    ("duplicate_name", "[app.web.headers]\nrequest.set = { X-A = \"1\", §x-a = \"2\" }", "set twice", ""),
    ("duplicate_endpoint", "[app.x]\nhosts = [\"x\"]\nblue = [\"h:1\"]\ngreen = [§\"H:1\"]", "`h:1` is in blue and in green", "give each color its own"),
    ("duplicate_endpoint", "[app.x]\nhosts = [\"x\"]\nblue = [\"h:1\", §\"h:1\"]", "is in blue twice", ""),
    ("endpoint_is_listener", "[[listener]]\naddress = \"0.0.0.0:80\"\n[app.x]\nhosts = [\"x\"]\nblue = [§\"127.0.0.1:80\"]", "in a circle", ""),
    ("no_endpoints", "[app.§x]\nhosts = [\"x\"]", "neither color has an endpoint", "add `blue ="),
    ("no_endpoints", "[app.x]\n[app.x.service.§a]\npath = \"/a\"\nblue = []\ngreen = []", "neither color", ""),
    ("conflicting_keys", "[app.x]\nblue = §[\"h:1\"]\n[app.x.service.a]\npath = \"/a\"\nblue = [\"h:1\"]", "short for its only service", "[app.x.service.NAME]"),
    ("conflicting_keys", "[app.x.service.a]\npath = §\"/a\"\npath_prefix = \"/b\"\nblue = [\"h:1\"]", "cannot both be set", ""),
    ("conflicting_keys", "[app.x.service.a]\npath = \"/a\"\nstrip_prefix = §true\nblue = [\"h:1\"]", "`strip_prefix` needs `path_prefix`", ""),
    ("conflicting_keys", "[app.web.limits]\nconnections = §5", "for the whole process", "put it into `[limits]`"),
    ("conflicting_keys", "[app.web.limits]\nh2_streams = §5", "`h2_streams` is for the whole process", "put it into `[limits]`"),
    ("conflicting_keys", "[app.web.health]\nstatus = §\"200\"", "`status` has no effect", "add `path"),
    ("conflicting_keys", "[app.web.health]\nkind = \"tcp\"\npath = §\"/\"", "`path` has no effect", "remove"),
    ("conflicting_keys", "[app.web.headers]\nrequest.set = { a = \"1\" }\nrequest.remove = [§\"A\"]", "both set and removed", ""),
    ("missing_key", "[app.web.health]\nkind = §\"http\"", "needs a path", "add `path = \"/healthz\"`"),
    ("conflicting_keys", "[server]\ncompat_file = §\"x\"\n[app.x]\nhosts = [\"x\"]\nblue = [\"h:1\"]", "written by several apps", "{app}"),
    ("admin_open", "[admin]\naddress = §\"0.0.0.0:9900\"", "reached from other machines", "set `token_file`"),
];

#[test]
fn each_mistake_has_its_code_its_place_and_its_hint() {
    found_as_told(AFTER_BASE);
}

/// Each mistake of a table like [`AFTER_BASE`] is found as it says.
pub(super) fn found_as_told(table: &[(&str, &str, &str, &str)]) {
    let mut failures = Vec::new();
    for &(code, marked, message, hint) in table {
        let marked = format!("{BASE}{marked}\n");
        let (before, after) = marked.split_once('§').expect("a place is marked");
        let found = bad(&format!("{before}{after}"));
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().unwrap().chars().count() + 1;
        let shown = found.to_string();
        let as_expected = match found.items.as_slice() {
            [item] => {
                (item.code, item.line, item.column) == (code, Some(line), Some(column))
                    && item.message.contains(message)
                    && item.hint.as_deref().unwrap_or_default().contains(hint)
                    && shown.contains(&format!("cutover.toml:{line}:{column}"))
            }
            _ => false,
        };
        if !as_expected {
            failures.push(format!(
                "--- wanted {code} {line}:{column} {message:?} {hint:?}, got\n{shown}"
            ));
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn all_mistakes_are_reported_at_once_in_the_order_of_the_file() {
    let text = "[serverr]
[server]
workers = \"4\"
[[listener]]
address = \"localhost:80\"
[app.web]
blue = [\"127.0.0.1\", \"127.0.0.1:8001\"]
green = [\"127.0.0.1:8001\"]
[app.web.health]
path = \"/healthz\"
rise = 0
headers = { a = \"${SECRET}\" }
";
    insta::assert_snapshot!(bad(text).to_string(), @r##"
error[unknown_key]: unknown key `serverr` in the file
 --> cutover.toml:1:2
  |
1 | [serverr]
  |  ^^^^^^^
  |
  = help: did you mean `server`?

error[wrong_type]: `workers` must be an integer, not a string
 --> cutover.toml:3:11
  |
3 | workers = "4"
  |           ^^^
  |
  = help: without quotes: `4`

error[bad_value]: `address` cannot be used: an address is needed, not a name: `127.0.0.1:80`, or `unix:/path`
 --> cutover.toml:5:11
  |
5 | address = "localhost:80"
  |           ^^^^^^^^^^^^^^

error[bad_endpoint]: `127.0.0.1` is not an endpoint: it has no port: write `127.0.0.1:8000`
 --> cutover.toml:7:9
  |
7 | blue = ["127.0.0.1", "127.0.0.1:8001"]
  |         ^^^^^^^^^^^

error[duplicate_endpoint]: `127.0.0.1:8001` is in blue and in green
 --> cutover.toml:8:10
  |
8 | green = ["127.0.0.1:8001"]
  |          ^^^^^^^^^^^^^^^^
  |
  = help: a switch would change nothing: give each color its own

error[out_of_range]: `rise` must be 1 to 1000, not 0
  --> cutover.toml:11:8
   |
11 | rise = 0
   |        ^

error[unset_variable]: the environment variable `SECRET` is not set
  --> cutover.toml:12:17
   |
12 | headers = { a = "${SECRET}" }
   |                 ^^^^^^^^^^^
   |
   = help: set it, or write `$${SECRET}` if the characters themselves are meant
"##);
}

#[test]
fn nothing_is_said_twice_or_after_a_mistake_that_explains_it() {
    // The broken listener is no reason to say that there is none, nor the broken endpoint that blue is empty.
    let found = bad("listener = 5\n[app.web]\nblue = [\"nonsense\"]\n");
    let codes: Vec<_> = found.items.iter().map(|item| item.code).collect();
    assert_eq!(codes, ["wrong_type", "bad_endpoint"], "{found}");
}

#[test]
fn what_a_file_lacks_is_named() {
    let found = bad("[log]\nlevel = \"info\"\n");
    let said: Vec<_> = found.items.iter().map(|item| item.message.as_str()).collect();
    assert_eq!(
        said,
        [
            "no listener: there is nowhere for clients to connect",
            "no app: there is nothing to send requests to"
        ]
    );
    let found = bad("listener = []\n[app]\n");
    assert_eq!(found.items.len(), 2, "{found}");
}

#[test]
fn syntax_errors_have_a_place_and_hide_what_they_may_have_caused() {
    let found = bad("[app.web]\nblue = [\"a:1\"\ngreen = 5\n[unknown]\n");
    assert!(
        found.items.iter().all(|item| item.code == "toml_syntax"),
        "{found}"
    );
    assert!(found.items.iter().all(|item| item.line.is_some()), "{found}");
}

#[test]
fn a_column_counts_characters_and_not_bytes() {
    let found = bad(&format!(
        "{BASE}[app.web.headers]\nrequest.set = {{ a = \"ä€\", b = 1 }}\n"
    ));
    let places: Vec<_> = found.items.iter().map(|item| item.column).collect();
    assert_eq!(places, [Some(21), Some(31)], "{found}");
}

#[test]
fn a_wrong_value_has_no_further_consequences() {
    for (text, codes) in [
        (
            "[app.x]\nhosts = [1]\nblue = [1]\n",
            ["wrong_type", "wrong_type"].as_slice(),
        ),
        ("[app.x]\nhosts = [\"x\"]\nservice = 1\n", &["wrong_type"]),
        (
            "[app.x]\nhosts = [\"x\"]\nservice.a.blue = 1\nservice.a.path = 1\nservice.b.blue = [\"b:1\"]\n",
            &["wrong_type", "wrong_type"],
        ),
        ("[app.web.health]\npath = 1\nstatus = \"200\"\n", &["wrong_type"]),
        (
            "[app.web.health]\nkind = \"htp\"\nstatus = \"200\"\n",
            &["bad_value"],
        ),
        (
            "[app.web.health]\npath = \"x\"\nstatus = \"200\"\n",
            &["bad_value"],
        ),
        (
            "[admin]\naddress = \"0.0.0.0:1\"\ntoken_file = 5\n",
            &["wrong_type"],
        ),
    ] {
        let found = bad(&format!("{BASE}{text}"));
        let found_codes: Vec<_> = found.items.iter().map(|item| item.code).collect();
        assert_eq!(found_codes, codes, "{found}");
    }
}

#[test]
fn secrets_and_control_characters_do_not_reach_the_terminal() {
    let env = |name: &str| (name == "TOKEN").then(|| "s3cret\u{1b}[31m".to_owned());
    let text = format!(
        "{BASE}[app.web.headers]\nrequest.set = {{ a = \"${{TOKEN}}\" }}\n[log]\nlevel = \"\\u001b[31m\"\n"
    );
    let found = parse(&text, "cutover.toml", &env).unwrap_err();
    assert_eq!(found.items.len(), 2, "{found}");
    let shown = found.render(false);
    assert!(!shown.contains("s3cret") && !shown.contains('\u{1b}'), "{shown}");
    assert!(found.render(true).contains('\u{1b}'), "colors on demand");
}

#[test]
fn a_flood_of_mistakes_is_cut_and_counted() {
    let mut text = BASE.to_owned();
    text.push_str("[log]\n");
    for n in 0..20_000 {
        text.push_str(&format!("x{n} = 1\n"));
    }
    let found = bad(&text);
    assert_eq!((found.items.len(), found.omitted), (100, 19_900));
    assert!(found.to_string().ends_with("and 19900 more"));
}

#[test]
fn a_diagnostic_is_one_line_for_a_log() {
    let found = bad(&format!("{BASE}[log]\nlevl = \"info\"\n"));
    assert_eq!(
        found.items[0].to_string(),
        "cutover.toml:7:1: unknown key `levl` in `[log]`; did you mean `level`?"
    );
}

#[test]
fn flags_that_cannot_be_used_are_all_named() {
    let texts = |list: &[&str]| list.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
    let found: Diagnostics =
        crate::config::from_flags("8080", &texts(&["a"]), &texts(&["b:1", "c:x"]), &none).unwrap_err();
    let files: Vec<_> = found.items.iter().map(|item| item.file.as_str()).collect();
    assert_eq!(files, ["--listen", "--blue", "--green"], "{found}");
    let same =
        crate::config::from_flags("127.0.0.1:0", &texts(&["b:1"]), &texts(&["b:1"]), &none).unwrap_err();
    assert_eq!(
        (same.items[0].code, same.items[0].line),
        ("duplicate_endpoint", None),
        "{same}"
    );
    let config = crate::config::from_flags(
        "127.0.0.1:0",
        &texts(&["127.0.0.1:8001"]),
        &texts(&["127.0.0.1:8002"]),
        &none,
    );
    assert_eq!(
        config.unwrap(),
        good(BASE),
        "flags mean what the smallest file means"
    );
}
