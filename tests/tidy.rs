//! The tree keeps its own rules (ARCHITECTURE.md): import direction, sizes, where serde and `unwrap` may be, example
//! configs that load, metrics that are documented. Each check is shown to fail on a small bad sample.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test panics to fail")]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// What a module may use, besides itself and the leaves. Skipping down is fine, up is not.
/// main, cli → app → { admin → control → store }, { proxy }; control, proxy → routing → upstream → config → rollout
const MAY_USE: &[(&str, &[&str])] = &[
    ("main", &["cli", "app"]),
    // The operator's side: it knows the server by the admin API alone.
    ("deploy", &["admin", "config", "rollout"]),
    // A first config file: texts alone.
    ("draft", &["config"]),
    ("demo", &["app", "config", "rollout"]),
    (
        "cli",
        &[
            "app", "demo", "deploy", "draft", "admin", "control", "store", "proxy", "routing", "upstream",
            "config", "rollout",
        ],
    ),
    (
        "app",
        &[
            "admin", "control", "store", "proxy", "routing", "upstream", "config", "rollout",
        ],
    ),
    (
        "admin",
        &["control", "store", "routing", "upstream", "config", "rollout"],
    ),
    ("control", &["store", "routing", "upstream", "config", "rollout"]),
    ("store", &["rollout"]),
    ("proxy", &["routing", "upstream", "config", "rollout"]),
    ("routing", &["upstream", "config", "rollout"]),
    ("upstream", &["config", "rollout"]),
    ("config", &["rollout"]),
    // Pure: nothing of ours, not even a leaf.
    ("rollout", &[]),
    // Leaves: anyone may use them. Metrics have labels, so they know the words of the bottom two.
    ("metrics", &["config", "rollout"]),
    ("expr", &[]),
    ("smoke", &["config", "rollout"]),
    ("shutdown", &[]),
    ("tls", &[]),
    ("wire", &[]),
];

const LEAVES: &[&str] = &["expr", "metrics", "shutdown", "smoke", "tls", "wire"];

const FILE_LINES_MAX: usize = 500;

/// Files that may be longer, each with its reason.
const LONG_FILES: &[(&str, &str)] = &[];

const FUNCTION_LINES_MAX: usize = 70;

/// Functions that may be longer, each with its reason: `file::function`.
const LONG_FUNCTIONS: &[(&str, &str)] = &[(
    "src/admin/problem.rs::facts",
    "one exhaustive match: the whole mapping of refusals in one place",
)];

/// Where serde's derives may stand: what crosses a wire or a disk has its own types there.
// `raw/` is `raw.rs` continued: one file of all tables would be too long.
const SERDE: &[&str] = &[
    "src/admin/dto.rs",
    "src/admin/dto/",
    "src/config/raw.rs",
    "src/config/raw/",
    "src/store/",
];

// --- the checks on the tree -------------------------------------------------------------------------------------

#[test]
fn imports_go_one_way() {
    report(
        sources()
            .iter()
            .flat_map(|file| bad_imports(&file.name, &file.code)),
    );
}

#[test]
fn files_stay_short() {
    let long = sources()
        .into_iter()
        .filter_map(|file| too_long(&file.name, &file.code));
    let excused = |line: &String| {
        LONG_FILES
            .iter()
            .any(|(file, _)| line.starts_with(&format!("{file}:")))
    };
    report(long.filter(|line| !excused(line)));
}

#[test]
fn functions_stay_short() {
    let files = sources();
    let long = files
        .iter()
        .flat_map(|file| long_functions(&file.name, &file.code));
    report(
        long.filter(|(key, _)| !LONG_FUNCTIONS.iter().any(|(known, _)| known == key))
            .map(|(_, line)| line),
    );
}

#[test]
fn every_exception_is_still_needed() {
    let files = sources();
    let functions: BTreeSet<String> = files
        .iter()
        .flat_map(|file| long_functions(&file.name, &file.code))
        .map(|(key, _)| key)
        .collect();
    let stale = LONG_FUNCTIONS
        .iter()
        .filter(|(key, _)| !functions.contains(*key))
        .map(|(key, _)| *key);
    let short = |name: &str| {
        !files
            .iter()
            .any(|file| file.name == name && too_long(name, &file.code).is_some())
    };
    let stale_files = LONG_FILES
        .iter()
        .filter(|(name, _)| short(name))
        .map(|(name, _)| *name);
    report(
        stale
            .chain(stale_files)
            .map(|key| format!("{key} is an exception that is no longer needed")),
    );
}

#[test]
fn serde_stays_at_the_edges() {
    report(
        sources()
            .iter()
            .flat_map(|file| serde_derives(&file.name, &file.code)),
    );
}

#[test]
fn nothing_unwraps_without_a_reason() {
    report(sources().iter().flat_map(|file| unwraps(&file.name, &file.code)));
}

#[test]
fn the_rollout_machine_is_pure() {
    report(
        sources()
            .iter()
            .filter(|file| file.module == "rollout")
            .flat_map(|file| impure(&file.name, &file.code)),
    );
}

#[test]
fn every_example_config_loads() {
    let examples: Vec<PathBuf> = files_below(&root().join("config"), "toml");
    assert!(!examples.is_empty(), "no example configs found");
    report(examples.iter().filter_map(|path| load(path).err()));
}

#[test]
fn every_metric_is_documented_and_every_documented_one_exists() {
    let read = |path: &str| {
        std::fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
    };
    let exported = metric_names(&read("src/metrics/names.rs"));
    let documented = metric_names(&read("docs/metrics.md"));
    assert!(exported.len() > 10, "found only {exported:?}");
    report(differences(&exported, &documented));
    // Dashboards and alerts ask for nothing that is not there.
    for extension in ["json", "yml"] {
        for path in files_below(&root().join("config"), extension) {
            let text = std::fs::read_to_string(&path).unwrap();
            let unknown = metric_names(&text)
                .into_iter()
                .filter(|name| !exported.contains(family(name, &exported)));
            report(unknown.map(|name| format!("{}: no such metric: {name}", path.display())));
        }
    }
}

// --- each check can fail ----------------------------------------------------------------------------------------

#[test]
fn a_forbidden_import_is_found() {
    let bad = |file: &str, text: &str| bad_imports(file, &stripped(text)).len();
    assert_eq!(bad("src/proxy/forward.rs", "use crate::control::Handle;"), 1);
    assert_eq!(bad("src/control/mod.rs", "fn f() { crate::proxy::go() }"), 1);
    assert_eq!(
        bad("src/upstream/mod.rs", "use crate::{config::X, routing::{Y, Z}};"),
        1
    );
    assert_eq!(
        bad(
            "src/upstream/mod.rs",
            "use crate::{\n    config::X,\n    routing,\n};"
        ),
        1
    );
    assert_eq!(bad("src/rollout/apply.rs", "use crate::metrics::Cells;"), 1);
    assert_eq!(
        bad("src/newcomer.rs", "use crate::rollout::Color;"),
        1,
        "a module without a rule"
    );
    assert_eq!(bad("src/main.rs", "use cutover::store::Journal;"), 1);
    assert_eq!(
        bad(
            "src/proxy/forward.rs",
            "// use crate::control::Handle;\nlet s = \"crate::control\";"
        ),
        0
    );
    assert_eq!(
        bad(
            "src/proxy/forward.rs",
            "use crate::{routing::Table, metrics::Cells};\nuse crate::proxy::body;"
        ),
        0
    );
    assert_eq!(bad("src/store/tests.rs", "use crate::rollout::Color;"), 0);
}

#[test]
fn a_long_file_or_function_is_found() {
    let line = "    let x = 1;\n";
    let function = |lines: usize| {
        format!(
            "/// Doc {{\nfn long(a: &str) -> char {{\n{}    '}}'\n}}\n",
            line.repeat(lines)
        )
    };
    assert_eq!(long_functions("src/a.rs", &stripped(&function(68))).len(), 1);
    assert_eq!(long_functions("src/a.rs", &stripped(&function(67))).len(), 0);
    assert_eq!(
        long_functions("src/a.rs", &stripped(&function(80)))[0].0,
        "src/a.rs::long"
    );
    let file = |lines: usize| {
        stripped(&format!(
            "// one\n\n{}#[cfg(test)]\nmod tests {{\n{}}}\n",
            line.repeat(lines),
            line
        ))
    };
    assert!(too_long("src/a.rs", &file(501)).is_some());
    assert!(
        too_long("src/a.rs", &file(500)).is_none(),
        "comments, blank lines and tests do not count"
    );
}

#[test]
fn serde_outside_the_edges_is_found() {
    let code = stripped(
        "#[derive(Debug, serde::Serialize)]\nstruct A;\n#[derive(\n    Clone,\n    Deserialize,\n)]\nstruct B;\n",
    );
    assert_eq!(serde_derives("src/control/view.rs", &code).len(), 2);
    assert_eq!(serde_derives("src/admin/dto.rs", &code).len(), 0);
    assert_eq!(serde_derives("src/store/wire/state.rs", &code).len(), 0);
}

#[test]
fn an_unreasoned_unwrap_is_found() {
    let count = |text: &str| unwraps("src/a.rs", &stripped(text)).len();
    assert_eq!(count("fn f() { x.unwrap(); y.expect(\"z\"); }"), 2);
    assert_eq!(count("fn f() { x\n    .unwrap()\n}"), 1);
    assert_eq!(
        count("#[expect(clippy::unwrap_used, reason = \"set above\")]\nfn f() { x.unwrap() }"),
        0
    );
    assert_eq!(
        count("#[expect(clippy::unwrap_used)]\nfn f() { x.unwrap() }"),
        1,
        "no reason"
    );
    assert_eq!(
        count("#[cfg(test)]\n#[allow(\n    a,\n)]\nmod tests { fn g() { x.unwrap() } }"),
        0
    );
    assert_eq!(count("#[cfg(test)]\nmod tests;\nfn g() { x.unwrap() }"), 1);
    assert_eq!(
        count("fn f() { x.unwrap_or(1); \".unwrap()\"; }\n#[cfg(test)]\nmod tests { fn g() { x.unwrap() } }"),
        0
    );
}

#[test]
fn modules_for_tests_alone_are_known() {
    let text =
        "#[cfg(test)]\nmod tests;\n#[cfg(test)]\n#[allow(\n    a\n)]\npub(super) mod testing;\nmod real;\n";
    assert_eq!(
        test_modules("src/admin/mod.rs", text),
        ["src/admin/tests", "src/admin/testing"]
    );
    assert_eq!(
        test_modules("src/admin/auth.rs", "#[cfg(test)]\nmod tests;"),
        ["src/admin/auth/tests"]
    );
    assert_eq!(
        test_modules("src/lib.rs", "#[cfg(test)]\nmod tests;"),
        ["src/tests"]
    );
}

#[test]
fn impurity_is_found() {
    assert_eq!(
        impure(
            "src/rollout/a.rs",
            &stripped("fn f() { Timestamp::now() }\nuse std::time::Instant;")
        )
        .len(),
        2
    );
    assert_eq!(
        impure(
            "src/rollout/a.rs",
            &stripped("// Timestamp::now()\nuse std::time::Duration;")
        )
        .len(),
        0
    );
}

#[test]
fn a_config_that_does_not_load_is_found() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("bad.toml");
    std::fs::write(&path, "[[listener]]\nadress = \"127.0.0.1:1\"\n").unwrap();
    assert!(load(&path).unwrap_err().contains("bad.toml"));
}

#[test]
fn an_undocumented_metric_is_found() {
    let set = |text: &str| metric_names(text);
    let (a, b) = (
        set("X = counter(\"cutover_a_total\", \"cutover_b\")"),
        set("| `cutover_a_total` |\n| `cutover_c` |"),
    );
    assert_eq!(differences(&a, &b).len(), 2);
    assert_eq!(differences(&a, &a).len(), 0);
    assert_eq!(
        family("cutover_d_seconds_bucket", &set("\"cutover_d_seconds\"")),
        "cutover_d_seconds"
    );
}

#[test]
fn stripping_leaves_only_code() {
    let text = "a /* x /* y */ z */ b // c\n\"d \\\" e\" 'f' '\\'' r#\"g \" h\"# &'life b\"i\" '{'";
    let code: String = stripped(text)
        .text
        .split_whitespace()
        .collect::<Vec<_>>()
        .join(" ");
    assert_eq!(code, "a b \"\" '' '' \"\" &'life b\"\" ''");
}

// --- how ----------------------------------------------------------------------------------------------------------

/// One file of the library, without comments, the insides of strings, and its test module.
struct Source {
    /// From the root of the project, `src/proxy/forward.rs`.
    name: String,
    module: String,
    code: Code,
}

/// Code with comments and strings blanked out; line numbers are the file's.
struct Code {
    text: String,
    /// The file as it is, for attributes with reasons.
    raw: String,
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Every source file that is no test: not named so, and not declared behind `#[cfg(test)]`.
fn sources() -> Vec<Source> {
    let all: Vec<(String, String)> = files_below(&root().join("src"), "rs")
        .into_iter()
        .map(|path| {
            let name = path.strip_prefix(root()).unwrap().to_str().unwrap().to_owned();
            (name, std::fs::read_to_string(&path).unwrap())
        })
        .collect();
    let tests: Vec<String> = all
        .iter()
        .flat_map(|(name, text)| test_modules(name, text))
        .collect();
    let files: Vec<Source> = all
        .iter()
        .filter(|(name, _)| {
            let path = name.trim_end_matches(".rs");
            !tests
                .iter()
                .any(|test| path == test || path.starts_with(&format!("{test}/")))
        })
        .map(|(name, text)| Source {
            name: name.clone(),
            module: module(name).to_owned(),
            code: stripped(text),
        })
        .collect();
    assert!(files.len() > 10, "found only {} files", files.len());
    files
}

/// The paths (without `.rs`) of the modules that a file declares for tests alone: `src/admin/testing`.
fn test_modules(name: &str, text: &str) -> Vec<String> {
    let path = name.trim_end_matches(".rs");
    let folder = ["/mod", "/lib", "/main"]
        .iter()
        .find_map(|end| path.strip_suffix(end))
        .unwrap_or(path);
    let lines: Vec<&str> = text.lines().collect();
    (0..lines.len())
        .filter(|at| is_test_attribute(lines[*at]))
        .filter_map(|at| item_after(&lines, at + 1))
        .filter_map(|(_, item)| item.strip_prefix("mod ")?.strip_suffix(';'))
        .map(|module| format!("{folder}/{module}"))
        .collect()
}

fn is_test_attribute(line: &str) -> bool {
    let line = line.trim();
    line == "#[cfg(test)]" || line.starts_with("#[cfg(all(test")
}

/// The first line behind further attributes, each of which may take several lines: its index, and it without `pub`.
fn item_after<'a>(lines: &[&'a str], mut at: usize) -> Option<(usize, &'a str)> {
    while lines.get(at)?.trim_start().starts_with("#[") {
        while !lines.get(at)?.trim_end().ends_with(']') {
            at += 1;
        }
        at += 1;
    }
    let item = lines[at].trim();
    let bare = item.strip_prefix("pub").map_or(item, |rest| {
        rest.strip_prefix("(super)")
            .or_else(|| rest.strip_prefix("(crate)"))
            .unwrap_or(rest)
            .trim_start()
    });
    Some((at, bare))
}

fn files_below(folder: &Path, extension: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display())) {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files_below(&path, extension));
        } else if path.extension().is_some_and(|is| is == extension) {
            found.push(path);
        }
    }
    found.sort();
    found
}

#[track_caller]
fn report(lines: impl IntoIterator<Item = String>) {
    let lines: Vec<String> = lines.into_iter().collect();
    assert!(
        lines.is_empty(),
        "{} to put right:\n{}",
        lines.len(),
        lines.join("\n")
    );
}

/// `src/proxy/forward.rs` → `proxy`, `src/app.rs` → `app`.
fn module(name: &str) -> &str {
    let inner = name.strip_prefix("src/").unwrap_or(name);
    inner.split('/').next().unwrap_or("").trim_end_matches(".rs")
}

fn bad_imports(name: &str, code: &Code) -> Vec<String> {
    let from = module(name);
    if from == "lib" {
        return Vec::new();
    }
    let Some((_, allowed)) = MAY_USE.iter().find(|(module, _)| *module == from) else {
        return vec![format!(
            "{name}: the module `{from}` has no rule in tests/tidy.rs (MAY_USE)"
        )];
    };
    let paths = if from == "main" {
        &["cutover::", "crate::"][..]
    } else {
        &["crate::"]
    };
    let used = paths.iter().flat_map(|prefix| uses(&code.text, prefix));
    used.filter(|(to, _)| MAY_USE.iter().any(|(module, _)| module == to))
        .filter(|(to, _)| to != from && !allowed.contains(&to.as_str()))
        .filter(|(to, _)| from == "rollout" || !LEAVES.contains(&to.as_str()))
        .map(|(to, line)| format!("{name}:{line}: `{from}` must not use `{to}`"))
        .collect()
}

/// The modules that follow `prefix` anywhere, those of a braced list too, with their lines.
fn uses(text: &str, prefix: &str) -> Vec<(String, usize)> {
    let mut found = Vec::new();
    for (at, _) in text.match_indices(prefix) {
        // Not `my_crate::` and not `$crate::`, whose path is the same but is counted where the macro is used.
        if text[..at].ends_with(|before: char| before.is_alphanumeric() || before == '_') {
            continue;
        }
        let line = line_of(text, at);
        let rest = &text[at + prefix.len()..];
        if let Some(list) = rest.strip_prefix('{') {
            let mut depth = 0;
            let mut start = true;
            for (offset, character) in list.char_indices() {
                match character {
                    '{' => depth += 1,
                    '}' if depth == 0 => break,
                    '}' => depth -= 1,
                    ',' if depth == 0 => start = true,
                    _ if start && character.is_alphabetic() => {
                        found.push((word(&list[offset..]), line));
                        start = false;
                    }
                    _ => {}
                }
            }
        } else {
            found.push((word(rest), line));
        }
    }
    found
}

fn word(text: &str) -> String {
    text.chars()
        .take_while(|character| character.is_alphanumeric() || *character == '_')
        .collect()
}

fn line_of(text: &str, at: usize) -> usize {
    text[..at].matches('\n').count() + 1
}

fn too_long(name: &str, code: &Code) -> Option<String> {
    let lines = code.text.lines().filter(|line| !line.trim().is_empty()).count();
    (lines > FILE_LINES_MAX).then(|| format!("{name}: {lines} lines of code, {FILE_LINES_MAX} are the limit"))
}

/// (`file::function`, what to say) of each that is too long.
fn long_functions(name: &str, code: &Code) -> Vec<(String, String)> {
    let text = &code.text;
    let mut found = Vec::new();
    for (at, _) in text.match_indices("fn ") {
        if text[..at].ends_with(|before: char| before.is_alphanumeric() || before == '_') {
            continue;
        }
        let function = word(&text[at + 3..]);
        let Some(length) = body_end(&text[at..]) else {
            continue;
        };
        let lines = text[at..at + length].matches('\n').count() + 1;
        if !function.is_empty() && lines > FUNCTION_LINES_MAX {
            let key = format!("{name}::{function}");
            let line = line_of(text, at);
            found.push((
                key,
                format!("{name}:{line}: `{function}` has {lines} lines, {FUNCTION_LINES_MAX} are the limit"),
            ));
        }
    }
    found
}

/// Where the body that begins in `text` ends; none for a declaration without one.
fn body_end(text: &str) -> Option<usize> {
    let mut depth = 0_usize;
    let mut brackets = 0_i32;
    for (at, character) in text.char_indices() {
        match character {
            '(' | '[' => brackets += 1,
            ')' | ']' => brackets -= 1,
            ';' if depth == 0 && brackets == 0 => return None,
            '{' => depth += 1,
            '}' => {
                depth = depth.checked_sub(1)?;
                if depth == 0 {
                    return Some(at);
                }
            }
            _ => {}
        }
    }
    None
}

fn serde_derives(name: &str, code: &Code) -> Vec<String> {
    if SERDE.iter().any(|place| name.starts_with(place)) {
        return Vec::new();
    }
    let text = &code.text;
    let derives = text.match_indices("derive(").filter_map(|(at, _)| {
        let list = &text[at..at + text[at..].find(')')?];
        (list.contains("Serialize") || list.contains("Deserialize")).then_some(at)
    });
    derives
        .map(|at| {
            format!(
                "{name}:{}: serde is derived only in {}",
                line_of(text, at),
                SERDE.join(", ")
            )
        })
        .collect()
}

/// A reasoned `allow` or `expect` covers the rest of its item; ten lines of attributes and signature, then the body.
fn unwraps(name: &str, code: &Code) -> Vec<String> {
    let text = &code.text;
    let mut found = Vec::new();
    for (call, lint) in [(".unwrap()", "unwrap_used"), (".expect(\"", "expect_used")] {
        for (at, _) in text.match_indices(call) {
            let line = line_of(text, at);
            if !excused(&code.raw, line, lint) {
                found.push(format!(
                    "{name}:{line}: `{call}` without a reasoned allow of clippy::{lint}"
                ));
            }
        }
    }
    found
}

fn excused(raw: &str, line: usize, lint: &str) -> bool {
    let lines: Vec<&str> = raw.lines().collect();
    let first = line.saturating_sub(FUNCTION_LINES_MAX);
    (first..line.min(lines.len())).any(|index| {
        let attribute = lines[index..lines.len().min(index + 6)].join("\n");
        let Some(end) = attribute.find(")]") else {
            return false;
        };
        let starts = lines[index].trim_start();
        (starts.starts_with("#[allow(") || starts.starts_with("#[expect(") || starts.starts_with("#![allow("))
            && attribute[..end].contains(lint)
            && attribute[..end].contains("reason =")
    })
}

fn impure(name: &str, code: &Code) -> Vec<String> {
    const WORDS: &[&str] = &[
        "tokio",
        "std::fs",
        "std::net",
        "std::io",
        "std::thread",
        "std::env",
        "Instant",
        "SystemTime",
        "Timestamp::now",
    ];
    let text = &code.text;
    let hits = WORDS.iter().flat_map(|word| text.match_indices(word));
    hits.map(|(at, word)| format!("{name}:{}: `{word}` in the pure machine", line_of(text, at)))
        .collect()
}

fn load(path: &Path) -> Result<(), String> {
    // An example may name any variable; what it is set to is not the example's business.
    let environment = |_: &str| Some("example".to_owned());
    cutover::config::load(path, &environment)
        .map(drop)
        .map_err(|mistakes| mistakes.to_string())
}

/// Every `cutover_…` name in quotes, backticks or an expression. Not `cutover::` paths.
fn metric_names(text: &str) -> BTreeSet<String> {
    let starts = text.match_indices("cutover_");
    starts
        .filter(|(at, _)| {
            !text[..*at]
                .ends_with(|before: char| before.is_alphanumeric() || matches!(before, '_' | '-' | '/'))
        })
        .map(|(at, _)| word(&text[at..]))
        .filter(|name| !name.ends_with('_'))
        .collect()
}

fn family<'a>(name: &'a str, known: &BTreeSet<String>) -> &'a str {
    let series = ["_bucket", "_sum", "_count"]
        .iter()
        .find_map(|suffix| name.strip_suffix(suffix));
    series.filter(|family| known.contains(*family)).unwrap_or(name)
}

fn differences(exported: &BTreeSet<String>, documented: &BTreeSet<String>) -> Vec<String> {
    let missing = exported
        .difference(documented)
        .map(|name| format!("{name} is not in docs/metrics.md"));
    let invented = documented
        .difference(exported)
        .map(|name| format!("{name} is in docs/metrics.md only"));
    missing.chain(invented).collect()
}

/// Blank out comments and what is inside strings and character literals; cut the test module off.
fn stripped(source: &str) -> Code {
    let raw = without_tests(source);
    Code {
        text: blank(&raw),
        raw,
    }
}

/// Up to a `#[cfg(test)]` that stands before a module, with other attributes between them or none.
fn without_tests(source: &str) -> String {
    let lines: Vec<&str> = source.lines().collect();
    let mut kept = String::new();
    let mut at = 0;
    while at < lines.len() {
        if is_test_attribute(lines[at])
            && let Some((item, text)) = item_after(&lines, at + 1)
            && text.starts_with("mod ")
        {
            // `mod tests;` may stand in the middle of a file, `mod tests {` is the rest of it.
            if !text.ends_with(';') {
                break;
            }
            at = item + 1;
            continue;
        }
        kept.push_str(lines[at]);
        kept.push('\n');
        at += 1;
    }
    kept
}

fn blank(source: &str) -> String {
    let bytes = source.as_bytes();
    let mut out = String::with_capacity(source.len());
    let mut at = 0;
    while at < bytes.len() {
        let rest = &source[at..];
        let length = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            block_comment(rest)
        } else if let Some(length) = raw_string(rest, out.chars().last()) {
            out.push_str("\"\"");
            length
        } else if rest.starts_with('"') {
            out.push_str("\"\"");
            string(rest)
        } else if let Some(length) = character(rest) {
            out.push_str("''");
            length
        } else {
            let next = rest.chars().next().unwrap();
            out.push(next);
            at += next.len_utf8();
            continue;
        };
        out.extend(rest[..length].matches('\n').map(|_| '\n'));
        at += length;
    }
    out
}

fn block_comment(rest: &str) -> usize {
    let (mut depth, mut at) = (0, 0);
    loop {
        if rest[at..].starts_with("/*") {
            depth += 1;
            at += 2;
        } else if rest[at..].starts_with("*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else if let Some(next) = rest[at..].chars().next() {
            at += next.len_utf8();
        } else {
            return at;
        }
    }
}

fn raw_string(rest: &str, before: Option<char>) -> Option<usize> {
    if before.is_some_and(|before| (before.is_alphanumeric() && before != 'b') || before == '_') {
        return None;
    }
    let hashes = rest
        .strip_prefix('r')?
        .bytes()
        .take_while(|byte| *byte == b'#')
        .count();
    let body = rest.get(1 + hashes..)?.strip_prefix('"')?;
    let end = format!("\"{}", "#".repeat(hashes));
    Some(1 + hashes + 1 + body.find(&end)? + end.len())
}

fn string(rest: &str) -> usize {
    let mut escaped = false;
    for (at, character) in rest.char_indices().skip(1) {
        match character {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return at + 1,
            _ => {}
        }
    }
    rest.len()
}

/// The length of a character literal; none for a lifetime.
fn character(rest: &str) -> Option<usize> {
    let body = rest.strip_prefix('\'')?;
    if let Some(escape) = body.strip_prefix('\\') {
        // The escaped character may be the quote itself.
        return Some(2 + 1 + escape.get(1..)?.find('\'')? + 1);
    }
    let first = body.chars().next()?;
    body[first.len_utf8()..]
        .starts_with('\'')
        .then_some(1 + first.len_utf8() + 1)
}
