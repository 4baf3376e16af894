//! `steward memory`: add documents, list them, ask them.

use std::path::{Path, PathBuf};

use clap::Subcommand;
use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::cli::client::Client;
use crate::cli::out::{self, plain};
use crate::cli::{Common, Fail};
use crate::memory::chunk::Kind;
use crate::memory::ingest::MOST_FILES;

/// `steward memory`.
#[derive(clap::Args, Clone, Debug)]
pub struct MemoryArgs {
    #[command(flatten)]
    common: Common,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Clone, Debug)]
enum Command {
    /// Add Markdown and text files, or all of them in a folder
    Add {
        /// Files and folders
        #[arg(required = true)]
        paths: Vec<PathBuf>,
    },
    /// List what is in memory
    List,
    /// Ask memory
    Search {
        /// The question, in any words
        #[arg(required = true)]
        words: Vec<String>,
        /// At most so many passages
        #[arg(long)]
        limit: Option<u32>,
    },
}

/// Runs the command.
///
/// # Errors
/// See [`Fail`].
pub async fn run(args: MemoryArgs) -> Result<(), Fail> {
    let MemoryArgs { common, command } = args;
    let client = Client::find(&common)?;
    match command {
        Command::Add { paths } => add(&client, &paths, common.json).await,
        Command::List => list(&client, common.json).await,
        Command::Search { words, limit } => search(&client, &words.join(" "), limit, common.json).await,
    }
}

/// One document that cannot be taken does not stop the others, but the command says so in the end.
async fn add(client: &Client, paths: &[PathBuf], as_json: bool) -> Result<(), Fail> {
    let mut files = Vec::new();
    for path in paths {
        collect(path, &mut files)?;
    }
    let (mut added, mut refused) = (Vec::new(), Vec::new());
    for (file, name) in files {
        match add_one(client, &file, &name).await {
            Ok((new, document)) => {
                let what = if new { "added" } else { "known" };
                out::note(&format!("{what}  {} ({} passages)", plain(&name), document["chunks"]));
                if let Some(why) = document["words_only"].as_str() {
                    out::note(&format!("found by its words alone for now: {}", plain(why)));
                }
                added.push(document);
            }
            Err(Fail::Refused(why)) => {
                out::note(&format!("refused  {}: {}", plain(&name), plain(&why)));
                refused.push(json!({"path": name, "why": why}));
            }
            Err(fail) => return Err(fail),
        }
    }
    let failed = !refused.is_empty();
    if as_json {
        out::json(&json!({"added": added, "refused": refused}))?;
    } else {
        out::line(&format!("{} documents in memory, {} refused", added.len(), refused.len()))?;
    }
    if failed { Err(Fail::Said) } else { Ok(()) }
}

async fn add_one(client: &Client, file: &Path, name: &str) -> Result<(bool, Value), Fail> {
    let text = std::fs::read_to_string(file).map_err(|error| Fail::Refused(error.to_string()))?;
    let reply = client.post("/api/v1/memory", &json!({"path": name, "text": text}), None).await?;
    Ok((reply.status == StatusCode::CREATED, reply.body))
}

/// A file by its name; of a folder, every document by its path inside it, hidden ones and links left out.
fn collect(root: &Path, files: &mut Vec<(PathBuf, String)>) -> Result<(), Fail> {
    let unreadable = |error: std::io::Error| Fail::Usage(format!("{}: {error}", root.display()));
    if !std::fs::metadata(root).map_err(unreadable)?.is_dir() {
        let name = root.file_name().unwrap_or_default().to_string_lossy().into_owned();
        files.push((root.to_owned(), name));
        return Ok(());
    }
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        let entries = std::fs::read_dir(&folder).map_err(unreadable)?.flatten();
        for entry in entries {
            let (path, name) = (entry.path(), entry.file_name().to_string_lossy().into_owned());
            let Ok(kind) = entry.file_type() else { continue };
            if name.starts_with('.') {
                continue;
            } else if kind.is_dir() {
                folders.push(path);
            } else if kind.is_file() && Kind::of_name(&name).is_some() {
                let inside = path.strip_prefix(root).unwrap_or(&path);
                let parts: Vec<_> = inside.iter().map(|part| part.to_string_lossy()).collect();
                files.push((path.clone(), parts.join("/")));
            }
        }
        if files.len() > MOST_FILES {
            return Err(Fail::Usage(format!("{} has more than {MOST_FILES} documents", root.display())));
        }
    }
    files.sort_by(|a, b| a.1.cmp(&b.1));
    Ok(())
}

async fn list(client: &Client, as_json: bool) -> Result<(), Fail> {
    let found = client.get("/api/v1/memory", &[]).await?;
    if as_json {
        return out::json(&found);
    }
    let text = |row: &Value, name: &str| row[name].as_str().unwrap_or_default().to_owned();
    let rows = found["documents"].as_array().into_iter().flatten().map(|row| {
        let version = format!("v{}", row["version"]);
        vec![text(row, "path"), version, row["chunks"].to_string(), text(row, "label"), text(row, "title")]
    });
    let rows: Vec<_> = rows.collect();
    let spaces = found["spaces"].as_array().into_iter().flatten();
    for space in spaces.filter(|space| space["wanted"] == true && space["missing"] != 0) {
        out::note(&format!("{} passages are still to be embedded", space["missing"]));
    }
    out::line(&out::table(&["PATH", "VERSION", "PASSAGES", "FROM", "TITLE"], &rows, out::width()))
}

async fn search(client: &Client, question: &str, limit: Option<u32>, as_json: bool) -> Result<(), Fail> {
    let limit = limit.map(|limit| limit.to_string());
    let mut query = vec![("q", question)];
    query.extend(limit.as_deref().map(|limit| ("limit", limit)));
    let found = client.get("/api/v1/memory/search", &query).await?;
    if as_json {
        return out::json(&found);
    }
    if let Some(why) = found["words_only"].as_str() {
        out::note(&format!("searched by words alone: {}", plain(why)));
    }
    let hits = found["hits"].as_array().map(Vec::as_slice).unwrap_or_default();
    if hits.is_empty() {
        return out::line("nothing in memory answers that");
    }
    for hit in hits {
        let text = |name: &str| plain(hit[name].as_str().unwrap_or_default());
        out::line(&format!("{} v{} · {}", text("path"), hit["version"], text("heading")))?;
        for line in hit["text"].as_str().unwrap_or_default().lines() {
            out::line(&format!("  {}", plain(line)))?;
        }
        out::line("")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_gives_its_documents_by_their_path_and_nothing_hidden() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(folder.path().join("prices/.git")).unwrap();
        for name in ["b.md", "prices/a.txt", "prices/.git/x.md", ".hidden.md", "photo.jpg"] {
            std::fs::write(folder.path().join(name), "x").unwrap();
        }
        let mut files = Vec::new();
        collect(folder.path(), &mut files).unwrap();
        let names: Vec<&str> = files.iter().map(|(_, name)| name.as_str()).collect();
        assert_eq!(names, ["b.md", "prices/a.txt"]);
    }
}
