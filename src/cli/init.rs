//! `init`: a first config file, from flags, from questions at a terminal, or from an nginx file.

use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::json;

use super::args::Common;
use super::failure::Failure;
use super::output::{Output, clean};
use crate::admin::Exit;
use crate::config;
use crate::draft::{App, Draft, Listener, Service, nginx};

/// Written when `-c` names no other.
const FILE: &str = "cutover.toml";

/// `init`
#[derive(Clone, Debug, Default, Args)]
pub(super) struct Init {
    /// Read this nginx file, with what it includes, and translate it
    #[arg(long, value_name = "FILE", conflicts_with_all = ["listen", "blue", "host", "compose"])]
    pub from_nginx: Option<PathBuf>,
    /// Where clients connect
    #[arg(long, value_name = "ADDRESS", value_parser = listen)]
    pub listen: Option<String>,
    /// Blue's endpoints
    #[arg(long, value_name = "ADDRESS", value_delimiter = ',', value_parser = endpoint)]
    pub blue: Vec<String>,
    /// Green's endpoints; with --from-nginx, where the file does not say
    #[arg(long, value_name = "ADDRESS", value_delimiter = ',', value_parser = endpoint)]
    pub green: Vec<String>,
    /// A name that the app answers to; default: any
    #[arg(long, value_name = "NAME", value_delimiter = ',', value_parser = host)]
    pub host: Vec<String>,
    /// The path that tells whether the app is well
    #[arg(long, value_name = "PATH", value_parser = path)]
    pub health: Option<String>,
    /// The compose service of one color, as app-{color}: gives `cutover deploy` its commands
    #[arg(long, value_name = "SERVICE", value_parser = compose)]
    pub compose: Option<String>,
    /// Print it instead of writing a file
    #[arg(long)]
    pub print: bool,
}

/// A question: its words, what stands for an empty answer, and how an answer is judged.
struct Question(&'static str, &'static str, fn(&str) -> Result<String, String>);

const NAME: Question = Question("What is the app called?", "web", name);
const LISTEN: Question = Question("Where do clients connect?", "127.0.0.1:8080", listen);
const HOSTS: Question = Question(
    "Which names does it answer to, with commas? Empty: any",
    "",
    hosts,
);
const BLUE: Question = Question("Where is blue?", "127.0.0.1:8001", endpoints);
const GREEN: Question = Question("Where is green?", "127.0.0.1:8002", endpoints);
const HEALTH: Question = Question(
    "Which path tells whether it is well? Empty: an open port is enough",
    "",
    maybe_path,
);
const COMPOSE: Question = Question(
    "Its compose service, as app-{color}? Empty: no deploy steps",
    "",
    maybe_compose,
);

pub(super) fn init(
    verb: &Init,
    common: &Common,
    env: &dyn Fn(&str) -> Option<String>,
    output: &mut Output,
) -> Result<(), Failure> {
    let target = common.config.clone().unwrap_or_else(|| PathBuf::from(FILE));
    if !verb.print && !common.force && target.exists() {
        let file = target.display();
        let why = format!(
            "{file} exists and stays as it is: --force replaces it, -c FILE names another, --print only shows"
        );
        return Err(Failure::new(Exit::Failed, why));
    }
    let (draft, notes) = match &verb.from_nginx {
        Some(file) => translated(file, verb, common)?,
        None => (answered(verb, common, output)?, Vec::new()),
    };
    if draft.apps.is_empty() {
        let all = notes.iter().map(told).collect::<Vec<_>>().join("\n");
        return Err(Failure::new(
            Exit::ConfigInvalid,
            format!("nothing was written\n{all}"),
        ));
    }
    let text = draft.to_toml();
    if verb.print {
        output.data(&text);
    }
    if let Err(wrong) = config::parse(&text, &target.display().to_string(), env) {
        let more = if verb.print { "" } else { "; --print shows it" };
        let why = format!(
            "what came out is not accepted, and was not written{more}\n{}",
            wrong.render(false)
        );
        return Err(Failure::new(Exit::ConfigInvalid, why));
    }
    if !verb.print {
        write(&target, &text, common.force)
            .map_err(|error| Failure::new(Exit::Failed, format!("{}: {error}", target.display())))?;
    }
    tell(verb, common, output, &target, &draft, &notes);
    Ok(())
}

fn told(note: &nginx::Note) -> String {
    clean(&format!("{}: `{}`: {}", note.place, note.text, note.why))
}

fn tell(
    verb: &Init,
    common: &Common,
    output: &mut Output,
    target: &Path,
    draft: &Draft,
    notes: &[nginx::Note],
) {
    let file = target.display();
    if common.json {
        if verb.print {
            return;
        }
        let open: Vec<_> = notes
            .iter()
            .map(|note| json!({ "place": note.place, "text": note.text, "why": note.why }))
            .collect();
        let apps: Vec<&str> = draft.apps.iter().map(|app| app.name.as_str()).collect();
        let report = json!({ "schema": "cutover.init/v1", "file": target, "apps": apps, "open": open });
        output.data(&report.to_string());
        return;
    }
    if !common.quiet {
        for note in notes {
            output.note(&told(note));
        }
        if !notes.is_empty() {
            output.note(&format!(
                "{} of the nginx file's lines are not in it; they also stand at its end",
                notes.len()
            ));
        }
    }
    match (verb.print, common.quiet) {
        (true, _) => {}
        (false, true) => output.data(&file.to_string()),
        (false, false) => output.data(&format!(
            "{file} is written; next: read it, `cutover check -c {file}`, `cutover run -c {file}`"
        )),
    }
}

/// A file that is there is never half replaced, and without `replace` not at all.
fn write(target: &Path, text: &str, replace: bool) -> io::Result<()> {
    if !replace {
        let mut file = std::fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .open(target)?;
        return file.write_all(text.as_bytes());
    }
    let mut name = std::ffi::OsString::from(".");
    name.push(target.file_name().unwrap_or_default());
    name.push(".new");
    let next = target.with_file_name(name);
    std::fs::write(&next, text)?;
    std::fs::rename(&next, target)
}

fn translated(file: &Path, verb: &Init, common: &Common) -> Result<(Draft, Vec<nginx::Note>), Failure> {
    let read = nginx::read(file);
    let nginx::Translated { mut draft, notes } =
        read.map_err(|error| Failure::new(Exit::ConfigInvalid, error.to_string()))?;
    if let Some(path) = &verb.health {
        draft
            .apps
            .iter_mut()
            .for_each(|app| app.health = Some(path.clone()));
    }
    if let (Some(name), [app]) = (&common.app, draft.apps.as_mut_slice()) {
        app.name.clone_from(name);
    }
    if !verb.green.is_empty() {
        let mut services = draft.apps.iter_mut().flat_map(|app| &mut app.services);
        match (services.next(), services.next()) {
            (Some(one), None) => {
                one.green.clone_from(&verb.green);
                one.guessed = None;
            }
            _ => {
                let why =
                    "--green with --from-nginx is for a file with one upstream: edit what is written instead";
                return Err(Failure::usage(why));
            }
        }
    }
    Ok((draft, notes))
}

/// From flags; what they do not say is asked, or taken as it usually is.
fn answered(verb: &Init, common: &Common, output: &mut Output) -> Result<Draft, Failure> {
    let terminal = output.live && io::stdin().is_terminal() && !common.yes && !common.json;
    if !terminal && verb.blue.is_empty() && verb.green.is_empty() {
        let why = "there is no terminal to ask at: say --blue ADDRESS and --green ADDRESS, or --from-nginx FILE. Nothing was written";
        return Err(Failure::usage(why));
    }
    let mut ask = |known: Option<String>, question: Question| match known {
        Some(known) => Ok(known),
        None if terminal => put(output, &question),
        None => Ok(question.1.to_owned()),
    };
    // Without a terminal one color may be left out.
    let of_color = |given: &[String]| list(given).or_else(|| (!terminal).then(String::new));
    let name = ask(common.app.clone(), NAME)?;
    let address = ask(verb.listen.clone(), LISTEN)?;
    let hosts = ask(list(&verb.host), HOSTS)?;
    let blue = ask(of_color(&verb.blue), BLUE)?;
    let green = ask(of_color(&verb.green), GREEN)?;
    let health = ask(verb.health.clone(), HEALTH)?;
    let compose = ask(verb.compose.clone(), COMPOSE)?;
    let split = |text: &str| -> Vec<String> {
        let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
        parts.map(str::to_owned).collect()
    };
    let some = |text: String| Some(text).filter(|text| !text.is_empty());
    let service = Service {
        name: "web".to_owned(),
        path: "/".to_owned(),
        blue: split(&blue),
        green: split(&green),
        ..Service::default()
    };
    let app = App {
        name,
        hosts: split(&hosts),
        health: some(health),
        compose: some(compose),
        services: vec![service],
        ..App::default()
    };
    let listener = Listener {
        address,
        ..Listener::default()
    };
    Ok(Draft {
        about: vec!["Made by `cutover init`.".to_owned()],
        listeners: vec![listener],
        apps: vec![app],
        ..Draft::default()
    })
}

fn list(given: &[String]) -> Option<String> {
    (!given.is_empty()).then(|| given.join(","))
}

/// Ask until the answer makes sense; the end of the input is no answer.
fn put(output: &mut Output, question: &Question) -> Result<String, Failure> {
    let Question(words, default, judge) = *question;
    let shown = match default {
        "" => String::new(),
        default => format!(" [{default}]"),
    };
    loop {
        output.part(&format!("{words}{shown} "));
        let mut line = String::new();
        let read = io::stdin().read_line(&mut line);
        if !read.is_ok_and(|read| read > 0) {
            return Err(Failure::new(Exit::Declined, "no answer: nothing was written"));
        }
        let answer = match line.trim() {
            "" => default,
            answer => answer,
        };
        match judge(answer) {
            Ok(answer) => return Ok(answer),
            Err(why) => output.note(&clean(&why)),
        }
    }
}

fn name(text: &str) -> Result<String, String> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let fits = (1..=63).contains(&text.len()) && text.chars().all(plain);
    match fits && text.starts_with(|c: char| c.is_ascii_alphanumeric()) {
        true => Ok(text.to_owned()),
        false => Err(
            "a name has 1 to 63 letters, digits, `-`, `_` or `.`, and starts with a letter or digit"
                .to_owned(),
        ),
    }
}

fn listen(text: &str) -> Result<String, String> {
    if text.starts_with("unix:/") || text.parse::<std::net::SocketAddr>().is_ok() {
        return Ok(text.to_owned());
    }
    match text.parse::<u16>() {
        Ok(port) => Ok(format!("0.0.0.0:{port}")),
        Err(_) => Err("write an address and a port, as `0.0.0.0:8080`, or `unix:/path`".to_owned()),
    }
}

fn endpoint(text: &str) -> Result<String, String> {
    let read = config::parse_endpoint(text.trim());
    read.map(|address| address.to_string())
        .map_err(|error| error.to_string())
}

fn endpoints(text: &str) -> Result<String, String> {
    let all: Result<Vec<String>, String> = text.split(',').map(endpoint).collect();
    all.map(|all| all.join(","))
}

fn host(text: &str) -> Result<String, String> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '*' | '_');
    match !text.is_empty() && text.chars().all(plain) {
        true => Ok(text.to_owned()),
        false => {
            Err("write a name as `shop.example.com` or `*.example.com`, without port and path".to_owned())
        }
    }
}

fn hosts(text: &str) -> Result<String, String> {
    let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
    let all: Result<Vec<String>, String> = parts.map(host).collect();
    all.map(|all| all.join(","))
}

fn path(text: &str) -> Result<String, String> {
    match text.starts_with('/') && !text.contains(char::is_whitespace) {
        true => Ok(text.to_owned()),
        false => Err("a path starts with `/`: `/health`".to_owned()),
    }
}

fn maybe_path(text: &str) -> Result<String, String> {
    if text.is_empty() {
        Ok(String::new())
    } else {
        path(text)
    }
}

fn compose(text: &str) -> Result<String, String> {
    match text.contains("{color}") && !text.contains(char::is_whitespace) {
        true => Ok(text.to_owned()),
        false => Err("write where the color stands in the service's name: `app-{color}`".to_owned()),
    }
}

fn maybe_compose(text: &str) -> Result<String, String> {
    if text.is_empty() {
        Ok(String::new())
    } else {
        compose(text)
    }
}
