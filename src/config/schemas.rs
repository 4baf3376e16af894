//! JSON Schemas of the owner's files, generated from the structs that read them, so that editors
//! complete and check what is written. They lie in `config/schemas/`; a test keeps them fresh.

use schemars::JsonSchema;

use crate::config::agent::RawAgent;
use crate::config::channels::Channels;
use crate::config::connectors::Connectors;
use crate::config::models::Models;
use crate::config::policy::Policy;
use crate::config::settings::Settings;
use crate::config::structure::schema_of;
use crate::config::workflow::RawWorkflow;

/// The schemas as file names and contents.
#[must_use]
pub fn schemas() -> Vec<(&'static str, String)> {
    vec![
        ("agent.json", pretty::<RawAgent>()),
        ("channels.json", pretty::<Channels>()),
        ("connectors.json", pretty::<Connectors>()),
        ("models.json", pretty::<Models>()),
        ("policy.json", pretty::<Policy>()),
        ("settings.json", pretty::<Settings>()),
        ("workflow.json", pretty::<RawWorkflow>()),
    ]
}

fn pretty<T: JsonSchema>() -> String {
    let mut text = serde_json::to_string_pretty(&schema_of::<T>()).unwrap_or_default();
    text.push('\n');
    text
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;

    #[test]
    fn the_schemas_in_config_schemas_are_fresh() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/schemas");
        let mut stale = Vec::new();
        for (name, wanted) in schemas() {
            let path = folder.join(name);
            if std::env::var_os("STEWARD_UPDATE").is_some() {
                fs::create_dir_all(&folder).unwrap();
                fs::write(&path, &wanted).unwrap();
            }
            if fs::read_to_string(&path).unwrap_or_default() != wanted {
                stale.push(name);
            }
        }
        assert!(
            stale.is_empty(),
            "stale: {stale:?}; refresh them with `STEWARD_UPDATE=1 cargo test schemas`"
        );
        let known: Vec<_> = schemas().into_iter().map(|(name, _)| name.to_owned()).collect();
        for entry in fs::read_dir(&folder).unwrap() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            assert!(known.contains(&name), "nothing makes config/schemas/{name}");
        }
    }
}
