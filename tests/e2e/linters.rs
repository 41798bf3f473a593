//! The papers beside the binary, before the linters and schemas of those who read them: Dockerfile, compose files, manifests, pipelines.
//!
//! The tools are from PyPI; each is shown to refuse a bad sample, so that "no findings" means something.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::apps::tool;
use crate::server::binary;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Files of a folder and those below whose names end so.
fn files(folder: &str, end: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![root().join(folder)];
    while let Some(folder) = folders.pop() {
        for entry in
            std::fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
        {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.to_string_lossy().ends_with(end) {
                found.push(path);
            }
        }
    }
    assert!(!found.is_empty(), "no {end} below {folder}");
    found.sort();
    found
}

/// Exit code 0, and all that was printed.
fn passes(program: &str, args: &[&str], files: &[PathBuf]) -> (bool, String) {
    let output = Command::new(tool(program))
        .args(args)
        .args(files)
        .output()
        .expect("run the linter");
    let mut text = String::from_utf8_lossy(&output.stdout).into_owned();
    text += &String::from_utf8_lossy(&output.stderr);
    (output.status.success(), text)
}

/// All of these pass; this one does not, and the linter says `word` of it.
fn look(program: &str, args: &[&str], good: &[PathBuf], name: &str, bad: &str, word: &str) {
    let (passed, said) = passes(program, args, good);
    assert!(passed, "{program}:\n{said}");
    let folder = tempfile::tempdir().unwrap();
    let sample = folder.path().join(name);
    std::fs::write(&sample, bad).unwrap();
    let (passed, said) = passes(program, args, &[sample]);
    assert!(
        !passed && said.contains(word),
        "{program} finds nothing in {bad:?}:\n{said}"
    );
}

#[test]
fn the_dockerfile_pleases_hadolint() {
    let bad = "FROM debian\nRUN cd /tmp && apt-get install curl\n";
    look(
        "hadolint",
        &["--no-color"],
        &[root().join("Dockerfile")],
        "Dockerfile",
        bad,
        "DL3006",
    );
}

#[test]
fn compose_files_keep_to_the_compose_specification() {
    let mut all = files("config", "compose.yaml");
    all.retain(|path| path.is_file());
    let bad = "services:\n  a:\n    image: b\n    port: [\"1:1\"]\n";
    look(
        "check-jsonschema",
        &["--builtin-schema", "vendor.compose-spec"],
        &all,
        "compose.yaml",
        bad,
        "port",
    );
}

#[test]
fn pipelines_please_zizmor_and_their_schemas() {
    let mut github = files(".github/workflows", ".yml");
    github.extend(
        files("docs/ci", ".yaml")
            .into_iter()
            .filter(|path| path.to_string_lossy().contains("github")),
    );
    github.extend(files("config/examples", "github.yaml"));
    let schema = |name: &'static str| ["--builtin-schema", name];
    let bad = "on: push\njobs:\n  a:\n    runs_on: ubuntu-24.04\n";
    look(
        "check-jsonschema",
        &schema("vendor.github-workflows"),
        &github,
        "a.yml",
        bad,
        "runs_on",
    );
    let bad = "on: push\npermissions: {}\njobs:\n  a:\n    runs-on: ubuntu-24.04\n    steps:\n      - run: echo ${{ github.head_ref }}\n";
    look(
        "zizmor",
        &["--offline", "--no-progress"],
        &github,
        "a.yml",
        bad,
        "template-injection",
    );
    let mut gitlab = files("docs/ci", "gitlab.yaml");
    gitlab.extend(files("config/examples", "gitlab.yaml"));
    let bad = "deploy:\n  script: [\"true\"]\n  when: by-hand\n";
    look(
        "check-jsonschema",
        &schema("vendor.gitlab-ci"),
        &gitlab,
        "a.yml",
        bad,
        "by-hand",
    );
    let twins = [
        "docs/ci/github-ssh.yaml",
        "config/examples/forecaster/deploy.github.yaml",
    ];
    let [ours, theirs] = twins.map(|path| std::fs::read_to_string(root().join(path)).unwrap());
    assert_eq!(ours, theirs, "{twins:?} are one recipe");
}

#[test]
fn the_scripts_in_pipelines_are_shell() {
    let mut found = 0;
    for path in files("docs/ci", ".yaml") {
        for document in documents(&path) {
            let mut scripts = Vec::new();
            commands(&document, &mut scripts);
            for script in scripts {
                found += 1;
                let output = Command::new("bash").args(["-n", "-c", &script]).output().unwrap();
                assert!(
                    output.status.success(),
                    "{}: {script}\n{}",
                    path.display(),
                    String::from_utf8_lossy(&output.stderr)
                );
                assert!(
                    !script.contains("${{"),
                    "{}: an input inside a script: {script}",
                    path.display()
                );
            }
        }
    }
    assert!(found >= 4, "found only {found}");
}

/// What `run`, `script` and `after_script` have.
fn commands(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                match value {
                    Value::String(text) if key == "run" => found.push(text.clone()),
                    Value::Array(lines) if key.ends_with("script") => {
                        let lines: Vec<&str> = lines.iter().filter_map(Value::as_str).collect();
                        found.push(lines.join("\n"));
                    }
                    _ => commands(value, found),
                }
            }
        }
        Value::Array(all) => all.iter().for_each(|value| commands(value, found)),
        _ => {}
    }
}

#[test]
fn manifests_are_what_kubernetes_takes() {
    let all = files("config/k8s", ".yaml");
    let bad = "apiVersion: v1\nkind: Service\nmetadata: { name: a }\nspec: { clusterIp: None }\n";
    look(
        "kubernetes-validate",
        &["--strict"],
        &all,
        "a.yaml",
        bad,
        "clusterIp",
    );
}

/// The documents of a YAML file as JSON.
fn documents(path: &Path) -> Vec<Value> {
    let script =
        "import json, sys, yaml; print(json.dumps(list(yaml.load_all(open(sys.argv[1]), yaml.BaseLoader))))";
    let output = Command::new(tool("python"))
        .args(["-c", script])
        .arg(path)
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    serde_json::from_slice(&output.stdout).unwrap()
}

fn manifests() -> Vec<Value> {
    files("config/k8s", ".yaml")
        .iter()
        .flat_map(|path| documents(path))
        .collect()
}

/// A number; all scalars are text here.
fn number(value: &Value) -> u64 {
    value
        .as_str()
        .and_then(|text| text.parse().ok())
        .unwrap_or_else(|| panic!("{value} is no number"))
}

fn seconds(text: &str) -> u64 {
    text.strip_suffix('s')
        .and_then(|text| text.parse().ok())
        .unwrap_or_else(|| panic!("{text}: in seconds, for this test"))
}

#[test]
fn manifests_hang_together() {
    let all = manifests();
    let of = |kind: &str| all.iter().filter(|one| one["kind"] == kind).collect::<Vec<_>>();
    for forbidden in [
        "Role",
        "RoleBinding",
        "ClusterRole",
        "ClusterRoleBinding",
        "ServiceAccount",
    ] {
        assert!(
            of(forbidden).is_empty(),
            "no permission in the cluster is needed: {forbidden}"
        );
    }
    let mut pods = of("Deployment");
    assert_eq!(pods.len(), 2, "blue and green");
    pods.extend(of("StatefulSet"));
    let labels: Vec<&Value> = pods
        .iter()
        .map(|one| &one["spec"]["template"]["metadata"]["labels"])
        .collect();
    let selects = |selector: &Value, labels: &Value| {
        let mut wanted = selector.as_object().expect("labels").iter();
        wanted.all(|(key, value)| labels[key] == *value)
    };
    for (one, labels) in pods.iter().zip(&labels) {
        assert!(selects(&one["spec"]["selector"]["matchLabels"], labels), "{one}");
    }
    // A Service and a disruption budget for each, and for no other's pods.
    let services = of("Service");
    let selectors = services.iter().map(|one| &one["spec"]["selector"]);
    let budgets = of("PodDisruptionBudget");
    let selectors = selectors.chain(budgets.iter().map(|one| &one["spec"]["selector"]["matchLabels"]));
    let mut counts = vec![0; labels.len()];
    for selector in selectors {
        let hits: Vec<usize> = (0..labels.len())
            .filter(|at| selects(selector, labels[*at]))
            .collect();
        assert_eq!(hits.len(), 1, "{selector} selects the pods of one");
        counts[hits[0]] += 1;
    }
    assert!(counts.iter().all(|count| *count == 2), "{counts:?}");
    let headless = services.iter().filter(|one| one["spec"]["clusterIP"] == "None");
    assert_eq!(headless.count(), 2);

    for one in pods.into_iter().chain(of("Job")) {
        let pod = &one["spec"]["template"]["spec"];
        assert_eq!(pod["automountServiceAccountToken"], "false", "{one}");
        assert_eq!(pod["securityContext"]["runAsNonRoot"], "true", "{one}");
        for container in pod["containers"].as_array().unwrap() {
            let security = &container["securityContext"];
            assert_eq!(security["readOnlyRootFilesystem"], "true", "{one}");
            assert_eq!(security["allowPrivilegeEscalation"], "false", "{one}");
            assert_eq!(security["capabilities"]["drop"][0], "ALL", "{one}");
            if one["kind"] != "Job" {
                for probe in ["startupProbe", "readinessProbe", "livenessProbe"] {
                    assert!(container[probe].is_object(), "{probe}: {one}");
                }
            }
        }
    }
}

#[test]
fn the_configuration_in_the_manifests_is_checked_and_its_times_fit() {
    let all = manifests();
    let map = all
        .iter()
        .find(|one| one["kind"] == "ConfigMap")
        .expect("a ConfigMap");
    let text = map["data"]["cutover.toml"].as_str().expect("the configuration");
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("cutover.toml");
    std::fs::write(&path, text).unwrap();
    let check = |path: &Path| {
        let output = Command::new(binary())
            .args(["check", "-c"])
            .arg(path)
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        (output.status.code(), said)
    };
    assert_eq!(check(&path).0, Some(0), "{}", check(&path).1);
    std::fs::write(&path, text.replace("blue = [", "blu = [")).unwrap();
    assert_eq!(check(&path).0, Some(3), "the check can fail");
    assert_eq!(check(&root().join("config/k8s/deploy/cutover.toml")).0, Some(0));

    let config: toml::Table = text.parse().unwrap();
    let web = &config["app"]["web"];
    let grace = seconds(config["server"]["shutdown_grace"].as_str().unwrap());
    let drain = seconds(web["drain"]["http"].as_str().unwrap());
    let pod = |kind: &str| {
        let found = all.iter().filter(move |one| one["kind"] == kind);
        found
            .map(|one| &one["spec"]["template"]["spec"])
            .collect::<Vec<_>>()
    };
    let patience = |pod: &Value| number(&pod["terminationGracePeriodSeconds"]);
    assert!(
        patience(pod("StatefulSet")[0]) > grace,
        "SIGKILL would come within the grace"
    );
    for app in pod("Deployment") {
        let pause = number(&app["containers"][0]["lifecycle"]["preStop"]["sleep"]["seconds"]);
        assert!(pause > 30, "a name may be remembered for 30 s");
        assert!(
            patience(app) > pause + drain,
            "SIGKILL would come before the drain is over"
        );
    }
    // The names and the port in the configuration are those of the headless Services.
    for color in ["blue", "green"] {
        let endpoint = web[color][0].as_str().unwrap();
        let service = all.iter().find(|one| {
            one["kind"] == "Service"
                && endpoint
                    == format!(
                        "{}:{}",
                        one["metadata"]["name"].as_str().unwrap(),
                        one["spec"]["ports"][0]["port"].as_str().unwrap()
                    )
        });
        assert_eq!(service.expect(endpoint)["spec"]["selector"]["color"], color);
    }
}
