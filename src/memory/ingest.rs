//! Adding to memory: parse, cut, embed, store. Everything before the last step is done outside the
//! transaction; the same bytes under the same name change nothing. What cannot be embedded is stored all the
//! same: its words find it, and [`crate::memory::filling`] makes its vectors when that is possible again.
//!
//! - [`add`] takes one document, [`add_path`] a file or a folder;
//! - [`list`] and [`remove`] look after them.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::domain::digest::Digest;
use crate::domain::ids::DocumentId;
use crate::domain::label::Label;
use crate::memory::chunk::{self, Cut, Kind, Piece};
use crate::memory::embedders::{Embedder, embed};
use crate::store::memory::{self as stored, Document, NewChunk, NewDocument, Space, spaces};
use crate::store::{Store, StoreError};

/// The largest document, in bytes: five thick books.
pub const LARGEST: usize = 5 * 1024 * 1024;

/// The most chunks of one document: more than twice what [`LARGEST`] makes when it is prose, so only
/// crumbs get there. Their vectors take 30 MB while the document is added.
pub const MOST_CHUNKS: usize = 20_000;

/// The longest name of a document, in bytes.
pub const LONGEST_PATH: usize = 512;

/// The longest title, in characters.
const LONGEST_TITLE: usize = 200;

/// Texts embedded in one call: enough to keep the encoder busy, few enough that others get their turn.
pub(super) const BATCH: usize = 32;

/// How long one batch may take while somebody waits for a document to be added; the built-in encoder needs
/// well under a second.
const PATIENCE: Duration = Duration::from_secs(60);

/// Files taken from one folder; more is most likely the wrong folder.
pub const MOST_FILES: usize = 10_000;

/// Why something was not added.
#[derive(Debug, thiserror::Error)]
pub enum IngestError {
    /// The name cannot name a document.
    #[error("{0:?} cannot name a document: use a relative path such as prices/hosting.md")]
    Path(String),
    /// Memory does not take such files.
    #[error("{0}: memory takes .md, .markdown and .txt files")]
    Kind(String),
    /// The bytes are not text.
    #[error("{path}: this is not UTF-8 text (byte {at})")]
    NotText {
        /// Which document.
        path: String,
        /// The offset of the first byte that does not fit.
        at: usize,
    },
    /// Too large.
    #[error("{path}: a document may have at most {} MiB; split it", LARGEST / 1024 / 1024)]
    TooLarge {
        /// Which document.
        path: String,
    },
    /// Cut into too many pieces.
    #[error("{path}: a document may have at most {MOST_CHUNKS} chunks, and this one has {chunks}; split it")]
    TooManyChunks {
        /// Which document.
        path: String,
        /// How many it has.
        chunks: usize,
    },
    /// Too many files.
    #[error("{0}: more than {MOST_FILES} documents in one folder; add its parts one by one")]
    TooMany(String),
    /// The file or folder cannot be read.
    #[error("{path}: {why}")]
    Read {
        /// Which file.
        path: String,
        /// What the system says.
        why: std::io::Error,
    },
    /// The database failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A fault in Steward.
    #[error("the document could not be cut: {0}")]
    Cut(String),
}

impl IngestError {
    /// Whether the fault is in this one document, so that others can still be added.
    #[must_use]
    pub fn is_in_the_document(&self) -> bool {
        match self {
            Self::Path(_)
            | Self::Kind(_)
            | Self::NotText { .. }
            | Self::TooLarge { .. }
            | Self::TooManyChunks { .. }
            | Self::Read { .. } => true,
            Self::TooMany(_) | Self::Store(_) | Self::Cut(_) => false,
        }
    }
}

/// A document that is in memory now.
#[derive(Clone, PartialEq, Eq, Debug, serde::Serialize)]
pub struct Added {
    /// The version's id.
    pub document: DocumentId,
    /// The document's name in memory.
    pub path: String,
    /// The version, counted from 1.
    pub version: i32,
    /// How many chunks it has; none if it is empty.
    pub chunks: i64,
    /// Whether it was there before, exactly so.
    pub unchanged: bool,
    /// Why it is found by its words alone for now; its vectors are made later, in the background.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub words_only: Option<String>,
}

/// What became of a file or a folder.
#[derive(Debug, Default)]
pub struct Report {
    /// What is in memory now, in the order of the paths.
    pub added: Vec<Added>,
    /// What was left out, and why.
    pub refused: Vec<IngestError>,
}

/// Adds one document. Its name's ending tells how it is read; `label` says where it came from. Other
/// bytes, or another label, under a known name make a new version; an empty document is a version
/// without chunks, so that nothing of the old one is found any more.
///
/// # Errors
/// See [`IngestError`].
pub async fn add(
    store: &Store,
    embedder: &dyn Embedder,
    path: &str,
    bytes: &[u8],
    label: Label,
) -> Result<Added, IngestError> {
    check_path(path)?;
    let kind = Kind::of_name(path).ok_or_else(|| IngestError::Kind(path.to_owned()))?;
    let text = text_of(path, bytes)?;
    let digest = Digest::of_bytes(bytes);
    let same = |now: &Document| now.digest == digest && now.label == label;
    if let Some(now) = stored::current(store, path).await?.filter(same) {
        return Ok(added(now, true, None));
    }
    let cut = tokio::task::spawn_blocking(move || chunk::cut(kind, &text))
        .await
        .map_err(|error| IngestError::Cut(error.to_string()))?;
    if cut.pieces.len() > MOST_CHUNKS {
        return Err(IngestError::TooManyChunks { path: path.to_owned(), chunks: cut.pieces.len() });
    }
    let title = title_of(path, &cut);
    let (space, chunks, words_only) = embedded(store, embedder, cut.pieces).await?;
    if let Some(why) = &words_only {
        tracing::warn!(path, why, "a document is found by its words alone for now");
    }
    let new = NewDocument { path: path.to_owned(), title, digest, label, chunks };
    match stored::put(store, space.as_ref(), &new).await? {
        Some(document) => Ok(added(document, false, words_only)),
        // Somebody else added the same bytes in the meantime.
        None => stored::current(store, path)
            .await?
            .map(|now| added(now, true, None))
            .ok_or_else(|| StoreError::Unavailable(format!("{path} was removed while it was added")).into()),
    }
}

/// Adds a file, or all documents in a folder and its folders, sorted by path. Hidden files, links and
/// files of other kinds are passed over; a document that cannot be taken is reported and does not stop
/// the others. Documents are named by their path from `root`; a single file by its name.
///
/// # Errors
/// When `root` is a file that cannot be taken or a folder that cannot be read, or when the database
/// fails; what was added before stays, and adding again goes on from there.
pub async fn add_path(
    store: &Store,
    embedder: &dyn Embedder,
    root: &Path,
    label: Label,
) -> Result<Report, IngestError> {
    let folder = root.to_owned();
    let files = blocking(move || files_in(&folder)).await??;
    let single = files.len() == 1 && files[0].0 == root;
    let mut report = Report::default();
    for (file, name) in files {
        let path = name.clone();
        let read = blocking(move || read(&file, &path)).await?;
        let done = match read {
            Ok(bytes) => add(store, embedder, &name, &bytes, label).await,
            Err(error) => Err(error),
        };
        match done {
            Ok(added) => report.added.push(added),
            Err(error) if error.is_in_the_document() && !single => report.refused.push(error),
            Err(error) => return Err(error),
        }
    }
    Ok(report)
}

/// The current versions of all documents, by path.
///
/// # Errors
/// When the database fails.
pub async fn list(store: &Store) -> Result<Vec<Document>, StoreError> {
    stored::list(store).await
}

/// Takes a document out of the search; its versions stay on record. `false` when there is none.
///
/// # Errors
/// When the database fails.
pub async fn remove(store: &Store, path: &str) -> Result<bool, StoreError> {
    stored::supersede(store, path).await
}

fn check_path(path: &str) -> Result<(), IngestError> {
    let fits = path.len() <= LONGEST_PATH
        && !path.chars().any(|c| c.is_control() || c == '\\')
        && path.split('/').all(|part| !matches!(part, "" | "." | ".."));
    if fits { Ok(()) } else { Err(IngestError::Path(path.to_owned())) }
}

/// The text in `bytes`, with plain line ends. A zero byte is valid UTF-8, but no text has one.
fn text_of(path: &str, bytes: &[u8]) -> Result<String, IngestError> {
    if bytes.len() > LARGEST {
        return Err(IngestError::TooLarge { path: path.to_owned() });
    }
    let not_text = |at| IngestError::NotText { path: path.to_owned(), at };
    let text = std::str::from_utf8(bytes).map_err(|error| not_text(error.valid_up_to()))?;
    match text.find('\0') {
        Some(at) => Err(not_text(at)),
        None => Ok(text.strip_prefix('\u{feff}').unwrap_or(text).replace("\r\n", "\n")),
    }
}

fn title_of(path: &str, cut: &Cut) -> String {
    let name = path.rsplit('/').next().unwrap_or(path);
    let title = cut.title.as_deref().unwrap_or(name);
    chunk::shortened(title, LONGEST_TITLE)
}

/// The pieces with their vectors, in which space those are, and why some have none.
async fn embedded(
    store: &Store,
    embedder: &dyn Embedder,
    pieces: Vec<Piece>,
) -> Result<(Option<Space>, Vec<NewChunk>, Option<String>), IngestError> {
    // What answers questions today, so that the document is found today. Before anything was embedded, the
    // space of the embedder is the first one and becomes that.
    let active = spaces::active(store).await?;
    let name = active.as_ref().map_or_else(|| embedder.space(), |space| space.model.clone());
    let mut dimensions = active.as_ref().and_then(|space| usize::try_from(space.dimensions).ok());
    let mut vectors = Vec::with_capacity(pieces.len());
    let mut why = None;
    for batch in pieces.chunks(BATCH) {
        let texts = batch.iter().map(|piece| as_embedded(&piece.heading, &piece.text)).collect();
        match embed(embedder, &name, dimensions, texts, PATIENCE).await {
            Ok(made) => vectors.extend(made.into_iter().map(Some)),
            Err(error) => {
                why = Some(error);
                break;
            }
        }
        dimensions = dimensions.or(vectors.iter().flatten().map(Vec::len).next());
    }
    let space = match (active, dimensions.filter(|_| !vectors.is_empty())) {
        (None, Some(dimensions)) => Some(spaces::space(store, &name, dimensions).await?),
        (active, _) => active,
    };
    vectors.resize(pieces.len(), None);
    let chunks = pieces.into_iter().zip(vectors).map(|(piece, embedding)| {
        let Piece { heading, text } = piece;
        NewChunk { heading, text, embedding }
    });
    Ok((space, chunks.collect(), why))
}

/// A piece is embedded together with its headings: "12 EUR" alone means nothing.
pub(super) fn as_embedded(heading: &str, text: &str) -> String {
    format!("{heading}\n{text}")
}

fn added(document: Document, unchanged: bool, words_only: Option<String>) -> Added {
    let Document { document, path, version, chunks, .. } = document;
    Added { document, path, version, chunks, unchanged, words_only }
}

/// The files to add below `root`, each with its name in memory, sorted by name.
fn files_in(root: &Path) -> Result<Vec<(PathBuf, String)>, IngestError> {
    let failed = |path: &Path, why| IngestError::Read { path: path.display().to_string(), why };
    if !std::fs::metadata(root).map_err(|why| failed(root, why))?.is_dir() {
        let name = root.file_name().unwrap_or_default().to_string_lossy().into_owned();
        return Ok(vec![(root.to_owned(), name)]);
    }
    let mut files = Vec::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).map_err(|why| failed(&folder, why))? {
            let entry = entry.map_err(|why| failed(&folder, why))?;
            let name = entry.file_name().to_string_lossy().into_owned();
            let kind = entry.file_type().map_err(|why| failed(&entry.path(), why))?;
            if name.starts_with('.') {
                continue;
            } else if kind.is_dir() {
                folders.push(entry.path());
            } else if kind.is_file() && Kind::of_name(&name).is_some() {
                files.push((entry.path(), name_below(root, &entry.path())));
            }
            if files.len() > MOST_FILES {
                return Err(IngestError::TooMany(root.display().to_string()));
            }
        }
    }
    files.sort_by(|a, b| a.1.cmp(&b.1));
    Ok(files)
}

fn name_below(root: &Path, file: &Path) -> String {
    let parts = file.strip_prefix(root).unwrap_or(file).components();
    parts.map(|part| part.as_os_str().to_string_lossy().into_owned()).collect::<Vec<_>>().join("/")
}

/// Reads no more than is allowed, whatever the file's size is said to be.
fn read(file: &Path, name: &str) -> Result<Vec<u8>, IngestError> {
    let failed = |why| IngestError::Read { path: file.display().to_string(), why };
    if Kind::of_name(name).is_none() {
        return Err(IngestError::Kind(name.to_owned()));
    }
    let mut bytes = Vec::new();
    let open = std::fs::File::open(file).map_err(failed)?;
    open.take(LARGEST as u64 + 1).read_to_end(&mut bytes).map_err(failed)?;
    Ok(bytes)
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, IngestError> {
    tokio::task::spawn_blocking(work).await.map_err(|error| IngestError::Cut(error.to_string()))
}
