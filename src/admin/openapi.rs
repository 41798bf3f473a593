//! The OpenAPI document: paths from the route table, schemas from the records themselves.

use serde_json::{Map, Value, json};
use utoipa::OpenApi;

use super::dto;
use super::problem::Code;
use super::routes::{ROUTES, Route};
use crate::config::Role;

#[derive(OpenApi)]
#[openapi(components(schemas(
    dto::Status,
    dto::Apps,
    dto::AppDocument,
    dto::Outcome,
    dto::History,
    dto::Event,
    dto::Lagged,
    dto::Reloaded,
    dto::Explained,
    dto::Drained,
    dto::Probed,
    dto::PreviewToken,
    dto::Settled,
    dto::Approved,
    dto::RolloutDocument,
    dto::StartRollout,
    dto::SteerRollout,
    dto::Approve,
    dto::ConfigText,
    dto::LeaseDocument,
    dto::TakeLease,
    dto::GiveLease,
    dto::ProblemBody,
    dto::Switch,
    dto::RollBack,
    dto::Weight,
    dto::Drain,
    dto::HoldRequests,
    dto::Release,
    dto::Maintenance,
    dto::SetColor,
    dto::Explain,
    dto::NewPreviewToken,
    dto::Nothing,
)))]
struct Schemas;

/// The whole document.
#[must_use]
pub fn document() -> Value {
    let schemas = serde_json::to_value(Schemas::openapi())
        .ok()
        .and_then(|mut document| document.get_mut("components").map(Value::take))
        .and_then(|mut components| components.get_mut("schemas").map(Value::take))
        .unwrap_or_default();
    let mut paths = Map::new();
    for route in ROUTES {
        let path = paths.entry(route.path).or_insert_with(|| json!({}));
        if let Value::Object(methods) = path {
            methods.insert(route.method.as_str().to_ascii_lowercase(), operation(route));
        }
    }
    let codes: Vec<_> = Code::ALL.iter().map(|code| code.facts().name).collect();
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "cutover admin API",
            "version": "1",
            "description": format!(
                "The same over the Unix socket and TCP. Over TCP changes need a bearer token. \
                 Errors are application/problem+json; `code` is one of: {}.", codes.join(", ")),
            "license": { "name": "Apache-2.0 OR MIT" },
        },
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": { "token": { "type": "http", "scheme": "bearer" } },
            "responses": { "Problem": {
                "description": "Refused or failed; `code` says how",
                "content": { "application/problem+json": { "schema": reference("ProblemBody") } },
            } },
        },
    })
}

fn operation(route: &Route) -> Value {
    let mut operation = json!({
        "operationId": operation_id(route),
        "summary": route.summary,
        "parameters": parameters(route),
        "responses": {
            "200": { "description": "Done", "content": content(route.answer) },
            "default": { "$ref": "#/components/responses/Problem" },
        },
    });
    if let Some(body) = route.body {
        operation["requestBody"] = json!({ "content": content(body) });
    }
    if route.needs > Role::Viewer {
        operation["security"] = json!([{ "token": [] }]);
        operation["description"] = json!(format!(
            "Over TCP: role {} or above.",
            super::auth::word(route.needs)
        ));
    }
    operation
}

/// `post /v1/apps/{app}/switch` → `postAppsAppSwitch`.
fn operation_id(route: &Route) -> String {
    let mut id = route.method.as_str().to_ascii_lowercase();
    for word in route
        .path
        .split(['/', '{', '}', '.'])
        .filter(|word| !word.is_empty() && *word != "v1")
    {
        let mut letters = word.chars();
        id.extend(letters.next().map(|first| first.to_ascii_uppercase()));
        id.push_str(letters.as_str());
    }
    id
}

fn parameters(route: &Route) -> Vec<Value> {
    let string = json!({ "type": "string" });
    let mut parameters = Vec::new();
    for name in ["app", "color"] {
        if route.path.contains(&format!("{{{name}}}")) {
            parameters.push(json!({ "name": name, "in": "path", "required": true, "schema": string }));
        }
    }
    for (name, meaning) in route.query {
        parameters.push(json!({ "name": name, "in": "query", "description": meaning, "schema": string }));
    }
    if route.answer == "Outcome" {
        for (name, meaning) in [
            (
                "If-Match",
                "refuse with 412 unless the app is at this generation: \"g42\"",
            ),
            ("Idempotency-Key", "the same key gets the first answer again"),
        ] {
            parameters
                .push(json!({ "name": name, "in": "header", "description": meaning, "schema": string }));
        }
    }
    if route.answer == "text/event-stream" {
        parameters.push(json!({ "name": "Last-Event-ID", "in": "header", "schema": string }));
    }
    parameters
}

/// By the name of a schema, or a content type.
fn content(answer: &str) -> Value {
    let mut content = Map::new();
    if answer.contains('/') {
        content.insert(answer.to_owned(), json!({ "schema": { "type": "string" } }));
    } else {
        content.insert(
            "application/json".to_owned(),
            json!({ "schema": reference(answer) }),
        );
    }
    Value::Object(content)
}

fn reference(name: &str) -> Value {
    json!({ "$ref": format!("#/components/schemas/{name}") })
}
