//! The operator's side: the admin API over its socket, in raw HTTP.

use std::path::Path;

use serde_json::Value;

use super::wire::{Message, Wire};

/// An answer of the admin API.
#[derive(Clone, Debug)]
pub struct Reply {
    pub status: u16,
    pub etag: Option<String>,
    pub text: String,
    /// `null` when the body is not JSON.
    pub json: Value,
}

impl Reply {
    /// It is 200; otherwise the test ends with what it said.
    #[track_caller]
    pub fn done(self) -> Self {
        assert_eq!(self.status, 200, "{}", self.text);
        self
    }

    pub fn generation(&self) -> u64 {
        self.json["generation"]
            .as_u64()
            .unwrap_or_else(|| panic!("no generation: {}", self.text))
    }
}

/// One call. Each has a connection of its own, so that calls may run at once.
pub fn call(socket: &Path, method: &str, path: &str, fields: &[(&str, &str)], body: Option<&Value>) -> Reply {
    let body = body.map(Value::to_string);
    let mut request = format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n");
    for (name, value) in fields {
        request += &format!("{name}: {value}\r\n");
    }
    if let Some(body) = &body {
        request += &format!(
            "Content-Type: application/json\r\nContent-Length: {}\r\n",
            body.len()
        );
    }
    request += "\r\n";
    request += body.as_deref().unwrap_or_default();
    read(&Wire::unix(socket).ask(request))
}

fn read(answer: &Message) -> Reply {
    let text = answer.text();
    Reply {
        status: answer.status(),
        etag: answer.field("etag").map(str::to_owned),
        json: serde_json::from_str(&text).unwrap_or_default(),
        text,
    }
}
