//! A small disk of its own, to be filled up: a tmpfs, where this machine lets us mount one.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Result, bail};

/// Enough for a cluster and its log, little enough to fill in a moment.
const SIZE: &str = "size=384m";

pub struct Disk {
    folder: PathBuf,
}

impl Disk {
    /// # Errors
    /// Why there can be none here.
    pub fn mount(folder: &Path) -> Result<Self> {
        std::fs::create_dir_all(folder)?;
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", SIZE, "tmpfs"]).arg(folder);
        match mount.output() {
            Ok(done) if done.status.success() => Ok(Self { folder: folder.to_owned() }),
            Ok(done) => bail!("{}", String::from_utf8_lossy(&done.stderr).trim()),
            Err(error) => bail!("mount: {error}"),
        }
    }

    /// Writes until nothing more fits.
    pub fn fill(&self) -> Result<()> {
        let mut ballast = std::fs::File::create(self.ballast())?;
        let block = vec![0u8; 1 << 20];
        for size in [block.len(), 4096] {
            while ballast.write_all(&block[..size]).is_ok() {}
        }
        Ok(())
    }

    pub fn free(&self) -> Result<()> {
        Ok(std::fs::remove_file(self.ballast())?)
    }

    fn ballast(&self) -> PathBuf {
        self.folder.join("ballast")
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.folder).output();
    }
}
