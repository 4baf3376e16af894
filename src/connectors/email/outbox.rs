//! Mail as `.eml` files in a folder, for a workspace that has no mail server yet: real mails that
//! any mail program opens and sends.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use crate::connectors::email::message::Mail;
use crate::domain::digest::Digest;

/// The folder.
#[derive(Clone, Debug)]
pub struct Outbox {
    folder: PathBuf,
}

/// A mail that is in the folder.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Filed {
    /// The file's name in the folder.
    pub file: String,
    /// SHA-256 of what the file holds.
    pub digest: Digest,
}

impl Outbox {
    /// The outbox in `folder`, which is made when the first mail comes.
    #[must_use]
    pub fn new(folder: PathBuf) -> Self {
        Self { folder }
    }

    /// Writes `mail`: after this it is in the folder whole, whatever crashes. The same mail again
    /// finds its file and leaves it alone.
    ///
    /// # Errors
    /// What the file system says; the mail is then not in the folder, or whole.
    pub async fn file(&self, mail: &Mail) -> io::Result<Filed> {
        let (folder, file, bytes) = (self.folder.clone(), name(mail), mail.bytes.clone());
        on_disk(move || {
            if let Some(there) = look(&folder, &file)? {
                return Ok(there);
            }
            DirBuilder::new().recursive(true).mode(0o700).create(&folder)?;
            write(&folder, &file, &bytes)?;
            Ok(Filed { file, digest: Digest::of_bytes(&bytes) })
        })
        .await
    }

    /// The file of `mail`, if it is there.
    ///
    /// # Errors
    /// What the file system says.
    pub async fn find(&self, mail: &Mail) -> io::Result<Option<Filed>> {
        let (folder, file) = (self.folder.clone(), name(mail));
        on_disk(move || look(&folder, &file)).await
    }
}

/// When the mail was first started and what its Message-ID hashes to: in order, and one name a mail.
fn name(mail: &Mail) -> String {
    let date = mail.at.strftime("%Y%m%dT%H%M%SZ");
    format!("{date}-{}.eml", Digest::of_bytes(mail.message_id.as_bytes()).short())
}

fn look(folder: &Path, file: &str) -> io::Result<Option<Filed>> {
    match fs::read(folder.join(file)) {
        Ok(bytes) => Ok(Some(Filed { file: file.to_owned(), digest: Digest::of_bytes(&bytes) })),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// A file of that name is either the whole mail or not there: written aside, made durable, renamed.
fn write(folder: &Path, file: &str, bytes: &[u8]) -> io::Result<()> {
    let aside = folder.join(format!(".{file}.{}", uuid::Uuid::new_v4().simple()));
    let written = (|| {
        let mut out = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&aside)?;
        out.write_all(bytes)?;
        out.sync_all()?;
        fs::rename(&aside, folder.join(file))
    })();
    if written.is_err() {
        let _ = fs::remove_file(&aside); // the first error is the one that matters
    }
    written?;
    File::open(folder)?.sync_all()
}

async fn on_disk<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other)?
}
