//! The template workspace, embedded: what `steward demo` begins with, and what an owner starts from.

use std::fs;
use std::io;
use std::io::Write as _;
use std::path::Path;

macro_rules! files {
    ($($path:literal),* $(,)?) => {
        &[$(($path, include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/", $path)))),*]
    };
}

/// The files, by their path in a workspace.
pub const FILES: &[(&str, &str)] = files![
    "agents/lead-reply.md",
    "agents/qualifier.md",
    "agents/router.md",
    "agents/support-answer.md",
    "agents/support-router.md",
    "config/channels.yaml",
    "config/connectors.yaml",
    "config/models.yaml",
    "config/policy.yaml",
    "config/settings.yaml",
    "config/workflows/lead-intake.yaml",
    "config/workflows/support.yaml",
];

/// Writes the template into `dir`, and the schemas its files point editors to. What is there already
/// stays as it is: a file of the owner's is never overwritten.
///
/// # Errors
/// When a folder or file cannot be written.
pub fn write(dir: &Path) -> io::Result<()> {
    for (path, text) in FILES {
        write_new(&dir.join(path), text)?;
    }
    for (name, text) in super::schemas::schemas() {
        write_new(&dir.join("config/schemas").join(name), &text)?;
    }
    Ok(())
}

fn write_new(path: &Path, text: &str) -> io::Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    match fs::File::create_new(path) {
        Ok(mut file) => file.write_all(text.as_bytes()),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn walk(root: &Path, folder: &str, found: &mut BTreeSet<String>) {
        for entry in fs::read_dir(root.join(folder)).unwrap() {
            let entry = entry.unwrap();
            let path = format!("{folder}/{}", entry.file_name().into_string().unwrap());
            match entry.file_type().unwrap().is_dir() {
                true if path == "config/schemas" => {} // generated
                true => walk(root, &path, found),
                false => {
                    found.insert(path);
                }
            }
        }
    }

    #[test]
    fn every_file_of_agents_and_config_is_embedded() {
        let mut found = BTreeSet::new();
        for folder in ["agents", "config"] {
            walk(Path::new(env!("CARGO_MANIFEST_DIR")), folder, &mut found);
        }
        let embedded: BTreeSet<String> = FILES.iter().map(|(path, _)| (*path).to_owned()).collect();
        assert_eq!(embedded, found, "list every file in FILES");
    }

    #[test]
    fn writing_the_template_leaves_the_owners_files_as_they_are() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("config")).unwrap();
        fs::write(dir.path().join("config/policy.yaml"), "rules: []\n").unwrap();
        write(dir.path()).unwrap();
        write(dir.path()).unwrap();
        assert_eq!(fs::read_to_string(dir.path().join("config/policy.yaml")).unwrap(), "rules: []\n");
        assert!(dir.path().join("config/schemas/workflow.json").exists());
        crate::config::workspace::Definitions::load(dir.path()).unwrap();
    }
}
