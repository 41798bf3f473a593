#![allow(missing_docs)]
fn main() {
    let o = cutover::app::RunOptions { config: Some(std::env::args().nth(1).unwrap().into()), ..Default::default() };
    if let Err(e) = cutover::app::run(&o) { eprintln!("{e}"); std::process::exit(1); }
}
