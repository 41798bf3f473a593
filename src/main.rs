//! The thin binary: all of it is in the library.

/// Ahead of the system's under load, above all with HTTP/2: `benches/README.md` has the figures.
#[cfg(feature = "mimalloc")]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    cutover::cli::main()
}
