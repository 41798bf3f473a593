//! Sizes of the tests, and the figures they print.

use std::io::Write;
use std::sync::{Mutex, MutexGuard};

/// Whether the full sizes are asked for.
pub fn full() -> bool {
    std::env::var("CUTOVER_E2E").is_ok_and(|size| size == "full")
}

/// `quick` by default, `whole` with `CUTOVER_E2E=full`.
pub fn size(quick: usize, whole: usize) -> usize {
    if full() { whole } else { quick }
}

/// One line to quote; also kept in the file that `tests/run` shows at the end.
pub fn say(line: &str) {
    println!("figure: {line}");
    if let Some(path) = std::env::var_os("CUTOVER_FIGURES")
        && let Ok(mut file) = std::fs::OpenOptions::new().create(true).append(true).open(path)
    {
        let _ = writeln!(file, "{line}");
    }
}

/// Tests of this binary run one at a time, under plain `cargo test` too: two of them on two cores would measure each other.
pub fn alone() -> MutexGuard<'static, ()> {
    static MACHINE: Mutex<()> = Mutex::new(());
    // A test that failed while it had the machine has given it back.
    MACHINE.lock().unwrap_or_else(|poisoned| {
        MACHINE.clear_poison();
        poisoned.into_inner()
    })
}
