//! The doors' sockets: bound before anything runs, so that a conflict ends the start and not the operation.

use std::fs;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use socket2::{Domain, SockAddr, Socket, Type};

use super::auth::{TokenError, Tokens};
use crate::config;

/// Connections that wait for being accepted.
const BACKLOG: i32 = 128;

/// Bound, not yet served.
#[derive(Debug)]
pub struct Bound {
    pub(super) unix: UnixListener,
    pub(super) file: SocketFile,
    pub(super) tcp: Option<TcpListener>,
    pub(super) hosts: Vec<String>,
    tcp_address: Option<SocketAddr>,
    tokens: Tokens,
    warnings: Vec<String>,
}

impl Bound {
    /// The socket's path.
    #[must_use]
    pub fn socket(&self) -> &Path {
        &self.file.path
    }

    /// The TCP address with its real port.
    #[must_use]
    pub const fn tcp_address(&self) -> Option<SocketAddr> {
        self.tcp_address
    }

    /// The tokens in use: call [`Tokens::reload`] on this when a configuration is taken into use.
    #[must_use]
    pub fn tokens(&self) -> Tokens {
        self.tokens.clone()
    }

    /// What the operator should know.
    #[must_use]
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }
}

/// The admin doors cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// A living process answers there.
    #[error("admin socket {}: {who} already answers there; stop it, or set another admin.socket", .path.display())]
    Living {
        /// The path.
        path: PathBuf,
        /// `process 123`, `another process`
        who: String,
    },
    /// Something else has the name.
    #[error("admin socket {}: there is something that is not a socket; it is left alone. Remove it, or set another admin.socket", .0.display())]
    NotASocket(PathBuf),
    /// The system says no.
    #[error("admin socket {}: {doing}: {source}", .path.display())]
    Socket {
        /// The path.
        path: PathBuf,
        /// What was tried.
        doing: String,
        /// What it said.
        source: io::Error,
    },
    /// The group is not known.
    #[error("admin.group: there is no group `{0}` in /etc/group")]
    UnknownGroup(String),
    /// The TCP address cannot be had.
    #[error("admin address {address}: {source}{hint}")]
    Tcp {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
        /// What to do.
        hint: &'static str,
    },
    /// A token file cannot be used.
    #[error(transparent)]
    Token(#[from] TokenError),
}

/// Open the doors that the configuration names. A socket left by a dead process is taken over.
///
/// # Errors
/// Every way in which a door stays shut; nothing is left behind.
pub fn bind(config: &config::Admin) -> Result<Bound, BindError> {
    let tokens = Tokens::default();
    let warnings = tokens.reload(&config.tokens)?;
    let gid = config.group.as_deref().map(group_id).transpose()?;
    let tcp = config.address.map(bind_tcp).transpose()?;
    let (unix, file) = bind_unix(&config.socket, config.mode, gid)?;
    Ok(Bound {
        unix,
        file,
        tcp_address: tcp.as_ref().and_then(|tcp| tcp.local_addr().ok()),
        tcp,
        hosts: config.hosts.clone(),
        tokens,
        warnings,
    })
}

fn bind_tcp(address: SocketAddr) -> Result<TcpListener, BindError> {
    let fail = |source: io::Error| BindError::Tcp {
        address,
        hint: match source.kind() {
            io::ErrorKind::AddrInUse => "; `ss -ltnp` names the process that has it",
            io::ErrorKind::AddrNotAvailable => "; this machine has no such address",
            _ => "",
        },
        source,
    };
    let listener = TcpListener::bind(address).map_err(fail)?;
    listener.set_nonblocking(true).map_err(fail)?;
    Ok(listener)
}

fn bind_unix(path: &Path, mode: u32, gid: Option<u32>) -> Result<(UnixListener, SocketFile), BindError> {
    let fail = |doing: &str, source: io::Error| BindError::Socket {
        path: path.to_owned(),
        doing: doing.to_owned(),
        source,
    };
    let address = SockAddr::unix(path).map_err(|error| {
        fail(
            "the path is too long for a socket (about 100 bytes); set a shorter admin.socket",
            error,
        )
    })?;
    if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        // A socket for the group or for all needs a directory that they can pass.
        let dir_mode = if mode & 0o077 == 0 { 0o700 } else { 0o755 };
        fs::DirBuilder::new()
            .recursive(true)
            .mode(dir_mode)
            .create(parent)
            .map_err(|error| fail("its directory cannot be made", error))?;
    }
    take_over(path, &address)?;
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None).map_err(|error| fail("no socket", error))?;
    socket.bind(&address).map_err(|error| fail("bind", error))?;
    let file = SocketFile::of(path).map_err(|error| fail("bind", error))?;
    // Mode and group are set before `listen`: until then nobody can connect, whatever the umask was.
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).map_err(|error| fail("chmod", error))?;
    if let Some(gid) = gid {
        std::os::unix::fs::chown(path, None, Some(gid))
            .map_err(|error| fail("chown to admin.group", error))?;
    }
    socket.listen(BACKLOG).map_err(|error| fail("listen", error))?;
    socket
        .set_nonblocking(true)
        .map_err(|error| fail("nonblocking", error))?;
    Ok((socket.into(), file))
}

/// Remove the socket of a dead process; refuse that of a living one.
fn take_over(path: &Path, address: &SockAddr) -> Result<(), BindError> {
    let fail = |doing: &str, source: io::Error| BindError::Socket {
        path: path.to_owned(),
        doing: doing.to_owned(),
        source,
    };
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(fail("look at what is there", error)),
        Ok(metadata) if !metadata.file_type().is_socket() => {
            return Err(BindError::NotASocket(path.to_owned()));
        }
        Ok(_) => {}
    }
    let probe = Socket::new(Domain::UNIX, Type::STREAM, None).map_err(|error| fail("no socket", error))?;
    // Not blocking: a process that hangs with a full backlog is alive too, and says so with EAGAIN.
    probe
        .set_nonblocking(true)
        .map_err(|error| fail("nonblocking", error))?;
    match probe.connect(address) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            fs::remove_file(path).map_err(|error| fail("remove the socket of a dead process", error))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Err(BindError::Living {
            path: path.to_owned(),
            who: "another process".to_owned(),
        }),
        Err(error) => Err(fail("find out whether the one there is alive", error)),
        Ok(()) => Err(BindError::Living {
            path: path.to_owned(),
            who: rustix::net::sockopt::socket_peercred(&probe).map_or_else(
                |_| "another process".to_owned(),
                |credentials| format!("process {}", credentials.pid.as_raw_nonzero()),
            ),
        }),
    }
}

fn group_id(group: &str) -> Result<u32, BindError> {
    if let Ok(number) = group.parse() {
        return Ok(number);
    }
    fs::read_to_string("/etc/group")
        .ok()
        .and_then(|text| find_name(&text, group))
        .ok_or_else(|| BindError::UnknownGroup(group.to_owned()))
}

/// The number of this name in a file of the form of `/etc/group`.
fn find_name(text: &str, name: &str) -> Option<u32> {
    text.lines().find_map(|line| {
        let mut fields = line.split(':');
        (fields.next()? == name)
            .then(|| fields.nth(1)?.parse().ok())
            .flatten()
    })
}

/// The socket's name in the file system; removed on drop, if it is still the one that we made.
#[derive(Debug)]
pub(super) struct SocketFile {
    path: PathBuf,
    identity: (u64, u64),
}

impl SocketFile {
    fn of(path: &Path) -> io::Result<Self> {
        Ok(Self {
            path: path.to_owned(),
            identity: identity(path)?,
        })
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if identity(&self.path).is_ok_and(|now| now == self.identity) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Device and inode.
fn identity(path: &Path) -> io::Result<(u64, u64)> {
    let metadata = fs::symlink_metadata(path)?;
    Ok((metadata.dev(), metadata.ino()))
}
