//! What the operator wrote, checked whole before any of it is used.

pub mod model;

pub use model::*;
