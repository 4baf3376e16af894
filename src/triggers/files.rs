//! The inbox folder: a raw message dropped into `.steward/inbox/` opens a run.
//!
//! A file is moved only after its run is durable, or after it was refused for good: into `done/`, or
//! into `refused/` beside a note that says why. Anything that may pass by itself leaves it where
//! it is. A crash between the run and the move costs nothing: the same message opens nothing twice.
//!
//! Of several processes in one workspace folder one looks at a time: what moves a file must have read
//! just that file, and not another one of the same name that came after it.

use std::collections::HashMap;
use std::fs::{self, File, Metadata, TryLockError};
use std::future::Future;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use ractor::{Actor, ActorProcessingErr, ActorRef};

use crate::triggers::email::{EmailError, MAX_EMAIL};
use crate::triggers::gather::Taken;
use crate::triggers::mail::{self, MailError, Mailroom};

/// How often the folder is looked at: soon enough for a person who waits, rarely enough to cost nothing.
const POLL: Duration = Duration::from_millis(500);

/// The pause after a message that could not be taken for now, such as while the database is away.
const PAUSE: Duration = Duration::from_secs(5);

/// A file that nobody has written to for this long was renamed into the folder, or is whole.
const SETTLED: Duration = Duration::from_secs(2);

/// Files taken in one look, so that a stop never waits for a full folder.
const BATCH: usize = 64;

/// Watches one folder.
pub struct Intake {
    /// Where mail comes in.
    pub mail: Arc<Mailroom>,
    /// The folder; it and its `done` and `refused` are made when they are missing.
    pub folder: PathBuf,
}

/// What the intake is told.
pub enum Msg {
    /// It is time to look.
    Tick,
    /// What the last look left behind.
    Done(Left),
}

/// What the intake keeps in mind between two looks.
#[derive(Default)]
pub struct State {
    busy: bool,
    seen: Seen,
    pause_until: Option<tokio::time::Instant>,
}

/// The size and time of change of each file at the last look.
type Seen = HashMap<PathBuf, (u64, Option<SystemTime>)>;

/// What a look left behind.
#[derive(Default)]
pub struct Left {
    seen: Seen,
    /// Something could not be taken for now.
    pause: bool,
}

impl Actor for Intake {
    type Msg = Msg;
    type State = State;
    type Arguments = ();

    async fn pre_start(&self, myself: ActorRef<Msg>, (): ()) -> Result<State, ActorProcessingErr> {
        for folder in [self.folder.clone(), self.folder.join("done"), self.folder.join("refused")] {
            fs::create_dir_all(folder)?;
        }
        let _ = myself.cast(Msg::Tick);
        myself.send_interval(POLL, || Msg::Tick);
        Ok(State::default())
    }

    async fn handle(
        &self,
        myself: ActorRef<Msg>,
        msg: Msg,
        state: &mut State,
    ) -> Result<(), ActorProcessingErr> {
        match msg {
            Msg::Tick
                if state.busy
                    || state.pause_until.is_some_and(|until| until > tokio::time::Instant::now()) => {}
            Msg::Tick => {
                state.busy = true;
                let mail = self.mail.clone();
                let (folder, seen) = (self.folder.clone(), std::mem::take(&mut state.seen));
                tokio::spawn(async move {
                    let deliver = |raw| {
                        let mail = mail.clone();
                        async move { mail::open(&mail, raw, None).await }
                    };
                    let left = look(&folder, &seen, SystemTime::now(), deliver).await;
                    let _ = myself.cast(Msg::Done(left));
                });
            }
            Msg::Done(left) => {
                state.busy = false;
                state.pause_until = left.pause.then(|| tokio::time::Instant::now() + PAUSE);
                state.seen = left.seen;
            }
        }
        Ok(())
    }
}

/// One file that may be taken.
struct Found {
    path: PathBuf,
    bytes: u64,
    changed: Option<SystemTime>,
}

/// Takes every whole file, the oldest first. Stops at the first that cannot be taken for now.
async fn look<F, D>(folder: &Path, seen: &Seen, now: SystemTime, deliver: F) -> Left
where
    F: Fn(Bytes) -> D,
    D: Future<Output = Result<Taken, MailError>>,
{
    let listed = watch(folder).and_then(|watch| Ok((watch, list(folder)?)));
    let (_watch, found) = match listed {
        Ok((Some(watch), found)) => (watch, found),
        Ok((None, _)) => return Left::default(), // another process is looking
        Err(error) => {
            tracing::error!(folder = %folder.display(), %error, "the inbox folder cannot be read");
            return Left { seen: Seen::new(), pause: true };
        }
    };
    let mut left = Left {
        seen: found.iter().map(|file| (file.path.clone(), (file.bytes, file.changed))).collect(),
        pause: false,
    };
    for file in found.iter().filter(|file| is_whole(file, seen, now)).take(BATCH) {
        if let Err(error) = take(folder, file, &deliver).await {
            tracing::warn!(file = %file.path.display(), %error, "a message stays in the inbox for now");
            left.pause = true;
            match error {
                Stays::ForNow(_) => return left, // nobody can be taken in now
                Stays::Io(_) => continue,        // this one file: the others are not its fault
            }
        }
        left.seen.remove(&file.path);
    }
    left
}

/// The right to look, for as long as it is held; the system takes it back when the process ends.
fn watch(folder: &Path) -> io::Result<Option<File>> {
    let file = File::options().create(true).truncate(false).write(true).open(folder.join(".lock"))?;
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

fn list(folder: &Path) -> io::Result<Vec<Found>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let is_mail = path.extension().is_some_and(|end| end.eq_ignore_ascii_case("eml"));
        // Not through links: what they point at is not in the inbox. A file may be gone again by now.
        let metadata = fs::symlink_metadata(&path).ok().filter(Metadata::is_file);
        if let (true, Some(metadata)) = (is_mail, metadata) {
            found.push(Found { path, bytes: metadata.len(), changed: metadata.modified().ok() });
        }
    }
    found.sort_by(|a, b| (a.changed, &a.path).cmp(&(b.changed, &b.path)));
    Ok(found)
}

/// Whether nobody is writing to the file any more: unchanged since the last look, or for long.
fn is_whole(file: &Found, seen: &Seen, now: SystemTime) -> bool {
    let age = file.changed.and_then(|changed| now.duration_since(changed).ok());
    seen.get(&file.path) == Some(&(file.bytes, file.changed)) || age.is_some_and(|age| age >= SETTLED)
}

/// Why a file stays where it is.
#[derive(Debug, thiserror::Error)]
enum Stays {
    #[error(transparent)]
    ForNow(MailError),
    #[error("{0}")]
    Io(#[from] io::Error),
}

async fn take<F, D>(folder: &Path, file: &Found, deliver: &F) -> Result<(), Stays>
where
    F: Fn(Bytes) -> D,
    D: Future<Output = Result<Taken, MailError>>,
{
    let bytes = usize::try_from(file.bytes).unwrap_or(usize::MAX);
    let delivered = match bytes > MAX_EMAIL {
        true => Err(EmailError::TooLarge { bytes, limit: MAX_EMAIL }.into()),
        false => match tokio::fs::read(&file.path).await {
            Ok(raw) => deliver(Bytes::from(raw)).await,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()), // taken back by its owner
            Err(error) => return Err(error.into()),
        },
    };
    match delivered {
        Ok(taken) => {
            put_away(&file.path, &folder.join("done"))?;
            tracing::info!(file = %file.path.display(), %taken, "a message was taken");
        }
        Err(error) if error.retryable() => return Err(Stays::ForNow(error)),
        Err(error) => {
            let moved = put_away(&file.path, &folder.join("refused"))?;
            fs::write(with_end(&moved, ".why.txt"), format!("{error}\n"))?;
            tracing::warn!(file = %moved.display(), %error, "a message was refused");
        }
    }
    Ok(())
}

/// Moves a file into a folder under its own name, or with a number when that is taken.
fn put_away(file: &Path, folder: &Path) -> io::Result<PathBuf> {
    fs::create_dir_all(folder)?;
    let name = Path::new(file.file_name().unwrap_or_default());
    let end = name.extension().map(|end| format!(".{}", end.to_string_lossy())).unwrap_or_default();
    let plain = folder.join(name);
    let numbered =
        (2u32..).map(|n| with_end(&folder.join(name.file_stem().unwrap_or_default()), &format!("-{n}{end}")));
    let free = std::iter::once(plain).chain(numbered).find(|path| !path.exists());
    let target = free.ok_or_else(|| io::Error::other("no name is free"))?;
    fs::rename(file, &target)?;
    Ok(target)
}

fn with_end(path: &Path, end: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(end);
    PathBuf::from(name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::ids::RunId;
    use crate::orchestrator::door::OpenError;
    use crate::store::StoreError;
    use crate::store::journal::Opened;
    use std::sync::Mutex;

    const MAIL: &str = "From: a@b.example\r\n\r\nhello\r\n";

    fn later() -> SystemTime {
        SystemTime::now() + SETTLED
    }

    async fn accept(_: Bytes) -> Result<Taken, MailError> {
        Ok(Taken::Run(Opened::New(RunId(uuid::Uuid::nil()))))
    }

    fn names(folder: &Path) -> Vec<String> {
        let entries = fs::read_dir(folder).into_iter().flatten().flatten();
        let names = entries.map(|e| e.file_name().into_string().unwrap());
        let mut names: Vec<String> = names.filter(|name| name != ".lock").collect();
        names.sort();
        names
    }

    #[tokio::test]
    async fn a_message_that_opened_a_run_moves_to_done_and_never_over_another() {
        let folder = tempfile::tempdir().unwrap();
        for _ in 0..2 {
            fs::write(folder.path().join("a.eml"), MAIL).unwrap();
            look(folder.path(), &Seen::new(), later(), accept).await;
        }
        assert_eq!(names(folder.path()), ["done"]);
        assert_eq!(names(&folder.path().join("done")), ["a-2.eml", "a.eml"]);
    }

    #[tokio::test]
    async fn a_file_that_grows_is_left_until_it_was_the_same_twice() {
        let folder = tempfile::tempdir().unwrap();
        let (file, now) = (folder.path().join("a.eml"), SystemTime::now());
        fs::write(&file, "From: a@").unwrap();
        let first = look(folder.path(), &Seen::new(), now, accept).await;
        fs::write(&file, MAIL).unwrap();
        let second = look(folder.path(), &first.seen, now, accept).await;
        assert!(file.exists(), "it has grown since the last look");
        look(folder.path(), &second.seen, now, accept).await;
        assert!(!file.exists());
    }

    #[tokio::test]
    async fn while_another_process_looks_at_the_folder_nothing_is_taken_and_nothing_is_wrong() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("a.eml"), MAIL).unwrap();
        let other = watch(folder.path()).unwrap();
        let never = |_| async { panic!("it was read") };
        assert!(!look(folder.path(), &Seen::new(), later(), never).await.pause);
        drop(other);
        look(folder.path(), &Seen::new(), later(), accept).await;
        assert_eq!(names(folder.path()), ["done"]);
    }

    #[tokio::test]
    async fn a_refused_message_has_the_reason_beside_it() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("a.eml"), "").unwrap();
        let refuse = |_| async { Err(MailError::Unreadable(EmailError::Empty)) };
        let left = look(folder.path(), &Seen::new(), later(), refuse).await;
        assert!(!left.pause);
        let refused = folder.path().join("refused");
        assert_eq!(names(&refused), ["a.eml", "a.eml.why.txt"]);
        assert_eq!(fs::read_to_string(refused.join("a.eml.why.txt")).unwrap(), "the email is empty\n");
    }

    #[tokio::test]
    async fn a_message_that_is_too_large_is_refused_without_being_read() {
        let folder = tempfile::tempdir().unwrap();
        let file = fs::File::create(folder.path().join("a.eml")).unwrap();
        file.set_len(30 * 1024 * 1024).unwrap();
        let never = |_| async { panic!("it was read") };
        look(folder.path(), &Seen::new(), later(), never).await;
        let why = fs::read_to_string(folder.path().join("refused/a.eml.why.txt")).unwrap();
        assert_eq!(why, "the email has 31457280 bytes; the limit is 26214400\n");
    }

    #[tokio::test]
    async fn a_database_that_does_not_answer_leaves_every_message_where_it_is() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["a.eml", "b.eml"] {
            fs::write(folder.path().join(name), MAIL).unwrap();
        }
        let asked = Mutex::new(0);
        let away = |_| {
            *asked.lock().unwrap() += 1;
            async { Err(MailError::Open(OpenError::Store(StoreError::Unavailable("gone".into())))) }
        };
        let left = look(folder.path(), &Seen::new(), later(), away).await;
        assert!(left.pause);
        assert_eq!(*asked.lock().unwrap(), 1, "the others would meet the same");
        assert_eq!(names(folder.path()), ["a.eml", "b.eml"]);
    }

    #[tokio::test]
    async fn only_files_named_eml_are_taken_the_oldest_first_and_no_links() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let now = SystemTime::now();
        for (name, age) in [("b.EML", 20), ("a.eml", 10), ("c.txt", 30)] {
            let file = fs::File::create(path(name)).unwrap();
            file.set_modified(now - Duration::from_secs(age)).unwrap();
        }
        std::os::unix::fs::symlink("/etc/hostname", path("d.eml")).unwrap();
        let found = list(folder.path()).unwrap();
        let found: Vec<_> = found.iter().map(|file| file.path.clone()).collect();
        assert_eq!(found, [path("b.EML"), path("a.eml")]);
    }
}
