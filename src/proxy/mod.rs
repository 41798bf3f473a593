//! The data plane: N workers, each with its own runtime, its own handle on every listener, its own connections.
//!
//! [`forward`](forward) is *the* request path and reads from top to bottom like the list in `ARCHITECTURE.md`.

mod beside;
mod body;
mod client;
mod deadline;
mod error;
mod exchange;
mod extended;
mod fit;
mod forward;
mod forwarded;
mod frames;
mod front;
mod grpc;
pub mod headers;
mod heads;
mod hold;
mod http1;
mod http2;
mod listener;
mod location;
pub mod origin;
mod preamble;
mod preface;
mod primed;
mod queue;
mod refusal;
mod reply;
pub mod request_id;
mod respond;
mod retry;
pub mod seen;
mod send;
mod serving;
mod sse;
mod streams;
mod target;
mod trace;
mod tunnel;
mod upgrade;
mod upload;
mod worker;

pub use listener::{BindError, Listener, bind};
pub use worker::{Phase, Plane, Shared, start};

/// Bytes of what a function's future keeps; `of` takes its arguments as one.
#[cfg(test)]
fn future_bytes<A, F: Future>(_of: impl Fn(A) -> F) -> usize {
    size_of::<F>()
}
