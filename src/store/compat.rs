//! The `compat_file`: the active color where older scripts look for it.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use super::StoreError;
use super::disk::remove;
use crate::rollout::Color;

/// Write the active color and a newline to the file that `template` names, with `{app}` replaced; returns its path.
///
/// Readers see the old content or the new one, never a part. Nothing in this program reads the file: the journal is
/// the truth, and what a script writes here is overwritten by the next change.
///
/// # Errors
/// What the operating system refused. The change itself stands.
pub fn write_compat_file(template: &str, app: &str, active: Color) -> Result<PathBuf, StoreError> {
    let path = PathBuf::from(template.replace("{app}", app));
    let failed = |cause| StoreError::io("write the compat_file", &path, cause);
    let Some(name) = path.file_name() else {
        return Err(failed(io::ErrorKind::InvalidInput.into()));
    };
    if template.contains("{app}") && (app.contains('/') || app == "..") {
        // An app's name comes from the config file; it still must not lead out of the directory.
        return Err(failed(io::ErrorKind::InvalidInput.into()));
    }
    // In the same directory, for a rename cannot leave its file system; hidden, so that no glob picks it up.
    let mut hidden = std::ffi::OsString::from(".");
    hidden.push(name);
    hidden.push(".cutover-new");
    let temp = path.with_file_name(hidden);
    replace(&temp, &path, active).map_err(|cause| {
        let _ = remove(&temp);
        failed(cause)
    })?;
    Ok(path)
}

fn replace(temp: &Path, path: &Path, active: Color) -> io::Result<()> {
    remove(temp)?;
    // For everyone to read: it holds nothing but a color.
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o644)
        .open(temp)?;
    writeln!(file, "{active}")?;
    file.sync_all()?;
    fs::rename(temp, path)?;
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty());
    File::open(dir.unwrap_or(Path::new(".")))?.sync_all()
}
