//! Where a keeper and the monitor find each other.
//!
//! A socket's path may have 107 bytes, which a repository's folder can exceed; so the socket lies in
//! the user's runtime folder under a hash, and `keeper.json` in the keeper's own folder says where,
//! for a monitor started with another environment. Whether a keeper lives is said by its lock alone.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

use super::folder::FolderId;
use super::protocol::PROTOCOL_VERSION;
use crate::sys::fail;
use crate::sys::file::{self, Durability};
use crate::sys::proc::{self, Process};

/// Longest path of a Unix socket (unix(7): 108 bytes with the final zero).
pub const SOCKET_PATH_BYTES_MAX: usize = 107;

const INFO_VERSION: u32 = 1;
const INFO_FILE: &str = "keeper.json";
const INFO_BYTES_MAX: u64 = 16 * 1024;

/// What a keeper says of itself in its folder; information, never authority.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeeperInfo {
    /// Version of this struct.
    pub v: u32,
    /// Process id, also the session's.
    pub pid: i32,
    /// Start time in clock ticks since boot.
    pub start_ticks: u64,
    /// The boot that the two numbers belong to.
    pub boot_id: String,
    /// Where it listens.
    pub socket: PathBuf,
    /// The newest messages that it understands; 0 where it does not say.
    #[serde(default)]
    pub protocol: u32,
    /// The version of its program; `None` where it does not say.
    #[serde(default)]
    pub program: Option<String>,
    /// The folder that it serves; `None` where it does not say.
    #[serde(default)]
    pub folder: Option<FolderId>,
}

impl KeeperInfo {
    /// Describes the calling process, which serves `keeper_dir` and listens at `socket`.
    ///
    /// # Errors
    /// When /proc or the folder cannot be read.
    pub fn of_self(keeper_dir: &Path, socket: &Path) -> io::Result<Self> {
        let pid = proc::own_pid();
        let stat = proc::read_stat(pid)?.ok_or_else(|| io::Error::other("/proc hides us"))?;
        Ok(Self {
            v: INFO_VERSION,
            pid,
            start_ticks: stat.start_ticks,
            boot_id: proc::boot_id()?,
            socket: socket.to_owned(),
            protocol: PROTOCOL_VERSION,
            program: Some(env!("CARGO_PKG_VERSION").into()),
            folder: Some(FolderId::of(keeper_dir)?),
        })
    }

    /// Reads what the last keeper in `keeper_dir` said; `None` when it said nothing readable, and when
    /// the folder is a copy: then it was said of another project's.
    #[must_use]
    pub fn read(keeper_dir: &Path) -> Option<Self> {
        let bytes = file::read_bounded(&keeper_dir.join(INFO_FILE), INFO_BYTES_MAX).ok()??;
        let info: Self = serde_json::from_slice(&bytes).ok()?;
        FolderId::is_home(info.folder, keeper_dir).ok()?.then_some(info)
    }

    /// Puts it into `keeper_dir`, whose lock the caller holds.
    ///
    /// # Errors
    /// Any of create, write and rename.
    pub fn write(&self, keeper_dir: &Path) -> io::Result<()> {
        let bytes = serde_json::to_vec(self)?;
        // The keeper's lock is held, so temporary files are of one that was killed.
        for entry in fs::read_dir(keeper_dir)?.flatten() {
            let left = entry.path();
            if left.extension().is_some_and(|ending| ending == "tmp") {
                fs::remove_file(&left)?;
            }
        }
        file::write_atomic(&keeper_dir.join(INFO_FILE), &bytes, Durability::Process)
    }

    /// Takes hold of the keeper; `None` when it is gone.
    ///
    /// # Errors
    /// When /proc cannot be read, or descriptors run out.
    pub fn process(&self) -> io::Result<Option<Process>> {
        if proc::boot_id()? != self.boot_id {
            return Ok(None);
        }
        match proc::read_stat(self.pid)? {
            Some(stat) if stat.start_ticks == self.start_ticks => Process::open(stat),
            Some(_) | None => Ok(None),
        }
    }
}

/// Returns the file whose lock the keeper in `keeper_dir` holds for as long as it lives.
#[must_use]
pub fn lock_path(keeper_dir: &Path) -> PathBuf {
    keeper_dir.join("lock")
}

/// Returns where the keeper in `keeper_dir` is to listen.
///
/// # Errors
/// When the path is too long for a socket.
pub fn socket_path(runtime_dir: &Path, keeper_dir: &Path) -> io::Result<PathBuf> {
    let hash = xxh3_64(keeper_dir.as_os_str().as_bytes());
    let path = runtime_dir.join(format!("{hash:016x}.sock"));
    let bytes = path.as_os_str().len();
    if bytes > SOCKET_PATH_BYTES_MAX {
        return Err(io::Error::other(format!(
            "`{}` has {bytes} bytes, a socket's path at most {SOCKET_PATH_BYTES_MAX}",
            path.display()
        )));
    }
    Ok(path)
}

/// Returns the user's folder for sockets, made when missing: below `XDG_RUNTIME_DIR`, else in /tmp.
///
/// # Errors
/// When it cannot be made, is not a folder of ours, or others may enter it.
pub fn runtime_dir() -> io::Result<PathBuf> {
    let given = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
    let path = match given.filter(|path| path.is_absolute() && path.is_dir()) {
        Some(path) => path.join("pipeline"),
        None => format!("/tmp/pipeline-{}", rustix::process::getuid().as_raw()).into(),
    };
    private_dir(&path)?;
    Ok(path)
}

/// Makes `path` a folder that only we can enter, or checks that it is one.
///
/// # Errors
/// When it cannot be made, is not a folder of ours, or others may enter it.
pub fn private_dir(path: &Path) -> io::Result<()> {
    fail::point("keeper.runtime_dir")?;
    match DirBuilder::new().mode(0o700).create(path) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(error),
    }
    let meta = fs::symlink_metadata(path)?;
    let is_ours = meta.is_dir() && meta.uid() == rustix::process::getuid().as_raw();
    if !is_ours || meta.mode() & 0o077 != 0 {
        return Err(io::Error::new(
            io::ErrorKind::PermissionDenied,
            format!("`{}` is not a folder that only this user can enter", path.display()),
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::{PermissionsExt, symlink};
    use std::path::Path;

    use super::{KeeperInfo, private_dir, socket_path};

    #[test]
    fn folder_that_others_may_enter_is_refused() {
        let dir = tempfile::tempdir().expect("temporary folder");
        let path = dir.path().join("run");
        private_dir(&path).expect("made");
        private_dir(&path).expect("checked");
        fs::set_permissions(&path, Permissions::from_mode(0o755)).expect("changes");
        assert!(private_dir(&path).is_err());
    }

    #[test]
    fn link_in_place_of_the_folder_is_refused() {
        let dir = tempfile::tempdir().expect("temporary folder");
        let (real, link) = (dir.path().join("real"), dir.path().join("link"));
        private_dir(&real).expect("made");
        symlink(&real, &link).expect("links");
        assert!(private_dir(&link).is_err());
    }

    #[test]
    fn socket_fits_however_deep_the_repository_is() {
        let deep = Path::new("/").join("x".repeat(200)).join("y".repeat(200));
        let path = socket_path(Path::new("/run/user/1000/pipeline"), &deep).expect("fits");
        assert!(path.as_os_str().len() < 108);
        assert!(socket_path(&deep, &deep).is_err());
    }

    #[test]
    fn keeper_of_another_boot_or_start_is_gone() {
        let dir = tempfile::tempdir().expect("temporary folder");
        let info = KeeperInfo::of_self(dir.path(), Path::new("/s")).expect("readable");
        fs::write(dir.path().join(".left.tmp"), "").expect("writes");
        info.write(dir.path()).expect("writes");
        assert_eq!(fs::read_dir(dir.path()).expect("reads").count(), 1, "what a killed one left");
        let read = KeeperInfo::read(dir.path()).expect("reads");
        assert_eq!(read, info);
        assert!(read.process().expect("looks").is_some());
        let other = KeeperInfo { boot_id: "x".into(), ..info.clone() };
        assert!(other.process().expect("looks").is_none());
        let other = KeeperInfo { start_ticks: info.start_ticks + 1, ..info };
        assert!(other.process().expect("looks").is_none());
    }

    #[test]
    fn a_copy_of_the_folder_says_nothing_of_its_keeper() {
        let temp = tempfile::tempdir().expect("temporary folder");
        let (dir, copy) = (temp.path().join("a"), temp.path().join("b"));
        fs::create_dir(&dir).and_then(|()| fs::create_dir(&copy)).expect("made");
        let info = KeeperInfo::of_self(&dir, Path::new("/s")).expect("readable");
        info.write(&dir).expect("writes");
        fs::copy(dir.join("keeper.json"), copy.join("keeper.json")).expect("copies");
        assert!(KeeperInfo::read(&copy).is_none());
        fs::remove_dir_all(&copy).and_then(|()| fs::rename(&dir, &copy)).expect("moves");
        assert_eq!(KeeperInfo::read(&copy), Some(info), "moved it is the same");
    }
}
