//! What a step was made from: the steps whose outputs its templates name, and theirs in turn.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::domain::ids::StepId;
use crate::domain::template::{self, step_of};
use crate::domain::workflow::Version;

/// The steps behind a step, by the owner's names for them: all whose outputs its templates name, and those
/// behind these. True for the ones that it names itself. What its conditions name is not among them: they
/// decide whether it happens, not what it is made of. Templates that do not parse name nothing.
#[must_use]
pub fn behind(version: &Version, step: &StepId) -> BTreeMap<StepId, bool> {
    let mut found: BTreeMap<StepId, bool> = named(version, step).into_iter().map(|id| (id, true)).collect();
    let mut open: Vec<StepId> = found.keys().cloned().collect();
    while let Some(next) = open.pop() {
        for id in named(version, &next) {
            if !found.contains_key(&id) {
                found.insert(id.clone(), false);
                open.push(id);
            }
        }
    }
    found
}

/// The steps that one step's templates name.
fn named(version: &Version, id: &StepId) -> BTreeSet<StepId> {
    let base = StepId::from(id.place().base);
    let (Some(step), Some(whole)) = (version.step(id), version.step(&base)) else { return BTreeSet::new() };
    let mut paths = BTreeSet::new();
    for text in step.templates() {
        let _ = template::paths(&text, &mut paths);
    }
    if let Some(each) = &whole.each {
        let _ = template::paths(&Value::String(each.of.clone()), &mut paths);
    }
    let mut steps: BTreeSet<StepId> =
        paths.iter().filter_map(|path| step_of(path)).map(StepId::from).collect();
    if paths.contains("steps") {
        // All of them at once: whatever comes before it.
        let before = |of: &StepId| version.descendants(&BTreeSet::from([of.clone()])).contains(&base);
        steps.extend(version.steps.iter().map(|step| step.id.clone()).filter(|id| *id != base && before(id)));
    }
    if id.place().undo {
        steps.insert(base); // an undoing is about what was done
    } else {
        steps.remove(&base);
    }
    steps
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn version() -> Version {
        let step = |id: &str, kind: Value| {
            let mut step = json!({"id": id, "needs": [], "retry": crate::domain::retry::Retry::default(), "timeout": "1m"});
            step.as_object_mut().unwrap().extend(kind.as_object().unwrap().clone());
            step
        };
        let agent = |with: Value| json!({"agent": {"agent": "a", "with": with}});
        let put = |with: Value| json!({"action": {"action": "records.put", "with": with}});
        let mut version = json!({"workflow": "w", "title": "W", "agents": {}, "input": {}});
        version["steps"] = json!([
            step("sort", agent(json!({"text": "{{ input.text }}"}))),
            step("write", agent(json!({"class": "{{ steps.sort.output.class }}"}))),
            step("aside", agent(json!({}))),
            step("keep", put(json!({"data": "{{ steps.write.output }}"}))),
            step("all", put(json!({"data": "{{ steps }}"}))),
        ]);
        version["steps"][3]["undo"] = json!({"action": "records.put", "with": {"key": "{{ output.key }}"}});
        version["steps"][4]["needs"] = json!(["sort", "aside"]);
        serde_json::from_value(version).unwrap()
    }

    #[test]
    fn an_effect_is_made_from_what_it_names_and_what_that_names() {
        let version = version();
        let behind = |step: &str| {
            let found = behind(&version, &step.into());
            found.into_iter().map(|(id, direct)| (id.0, direct)).collect::<Vec<_>>()
        };
        let all = |steps: &[(&str, bool)]| {
            steps.iter().map(|(id, direct)| ((*id).to_owned(), *direct)).collect::<Vec<_>>()
        };
        assert_eq!(behind("keep"), all(&[("sort", false), ("write", true)]));
        assert_eq!(behind("sort"), []);
        assert_eq!(behind("keep/undo"), all(&[("keep", true), ("sort", false), ("write", false)]));
        assert_eq!(behind("all"), all(&[("aside", true), ("sort", true)]));
        assert_eq!(behind("nothing"), []);
    }
}
