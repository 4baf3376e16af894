//! The shape of a file, held against the JSON Schema that is generated from the structs: unknown
//! fields, missing ones, wrong types. One source of truth for editors, for this check and for the
//! code, and every fault of a file at once.

use ipnet::IpNet;
use jsonschema::error::{TypeKind, ValidationErrorKind as Kind};
use jsonschema::{JsonType, ValidationError, Validator};
use schemars::JsonSchema;
use schemars::generate::SchemaSettings;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::config::document::{Document, Reporter};
use crate::config::nearest;
use crate::config::node::{Path, Step};
use crate::config::problem::Problems;
use crate::config::secret::SecretRef;
use crate::domain::duration::Span;
use crate::domain::money::Money;
use crate::domain::retention::Keep;

/// A form of text that a schema names by `format`: the name, the test, and how it is written.
type Format = (&'static str, fn(&str) -> bool, &'static str);

const FORMATS: &[Format] = &[
    ("span", |text| text.parse::<Span>().is_ok(), "write a duration as `500ms`, `30s`, `5m`, `2h` or `3d`"),
    ("retention", |text| text.parse::<Keep>().is_ok(), "write how long it is kept as `90d`, or `forever`"),
    ("money", |text| text.parse::<Money>().is_ok(), "write an amount as `0.10 USD`"),
    (
        "secret",
        |text| SecretRef::try_from(text.to_owned()).is_ok(),
        "write `env:NAME`, the name of an environment variable, or `file:/path`; never the secret itself",
    ),
    (
        "socket",
        |text| text.parse::<std::net::SocketAddr>().is_ok(),
        "write an address and a port, such as `127.0.0.1:7007`",
    ),
    ("network", |text| text.parse::<IpNet>().is_ok(), "write a network such as `192.168.1.0/24`"),
    (
        "url",
        |text| {
            url::Url::parse(text).is_ok_and(|url| matches!(url.scheme(), "http" | "https") && url.has_host())
        },
        "write a whole address, such as `https://api.openai.com/v1`",
    ),
    (
        "step",
        |text| name(text, "_"),
        "a step's id begins with a lower-case letter; then letters, digits and `_`",
    ),
    (
        "name",
        |text| name(text, "_-"),
        "a name begins with a lower-case letter; then letters, digits, `-` and `_`",
    ),
];

fn name(text: &str, besides: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_lowercase())
        && text.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || besides.contains(c))
}

/// The JSON Schema of a file's struct.
#[must_use]
pub fn schema_of<T: JsonSchema>() -> Value {
    let generator = SchemaSettings::draft2020_12().for_deserialize().into_generator();
    generator.into_root_schema_for::<T>().to_value()
}

/// Reads a file into its struct; `what` names it in the messages ("a workflow").
/// Gives it in spite of problems when they leave enough to check the rest by.
pub fn read<T: JsonSchema + DeserializeOwned>(
    document: &Document,
    what: &str,
    problems: &mut Problems,
) -> Option<T> {
    let before = problems.0.len();
    let (schema, mut value) = (schema_of::<T>(), document.root.to_value());
    let mut report = Reporter { document, problems };
    let slips = match validator(&schema) {
        Ok(validator) => {
            let (slips, missing) = (Vec::new(), Vec::new());
            let mut explainer =
                Explainer { schema: &schema, value: &value, what, report: &mut report, slips, missing };
            validator.iter_errors(&value).for_each(|error| explainer.explain(&error));
            explainer.finish()
        }
        Err(error) => {
            report.value(&Path::top(), error, "this is a fault in Steward: please report it");
            Vec::new()
        }
    };
    slips.iter().for_each(|slip| slip.undo(&mut value));
    match serde_json::from_value(value) {
        Ok(read) => Some(read),
        Err(_) if report.problems.0.len() > before => None,
        Err(error) => {
            report.value(&Path::top(), format!("this is not {what}: {error}"), "mend it as the message says");
            None
        }
    }
}

/// A field that is not known, and the one that was perhaps meant.
struct Slip {
    holder: String,
    field: String,
    meant: Option<String>,
}

impl Slip {
    /// Reads the file as it was meant, so that what else is wrong in it is found in the same go.
    fn undo(&self, value: &mut Value) {
        let Some(Value::Object(holder)) = value.pointer_mut(&self.holder) else { return };
        let Some(content) = holder.remove(&self.field) else { return };
        if let Some(meant) = self.meant.as_ref().filter(|meant| !holder.contains_key(*meant)) {
            holder.insert(meant.clone(), content);
        }
    }
}

fn validator(schema: &Value) -> Result<Validator, String> {
    let mut options = jsonschema::options().should_validate_formats(true);
    for (name, test, _) in FORMATS {
        options = options.with_format(*name, *test);
    }
    options.offline().build(schema).map_err(|error| error.to_string())
}

/// Says what a validation error means to the owner.
struct Explainer<'a, 'r> {
    schema: &'a Value,
    value: &'a Value,
    what: &'a str,
    report: &'a mut Reporter<'r>,
    slips: Vec<Slip>,
    missing: Vec<(String, Path, String)>,
}

impl Explainer<'_, '_> {
    fn explain(&mut self, error: &ValidationError<'_>) {
        let path = Path::top().pointer(self.value, error.instance_path().as_str());
        let holder = self.holder(&path);
        match error.kind() {
            Kind::AdditionalProperties { unexpected } => {
                let known = self.fields(error);
                let known: Vec<&str> = known.iter().map(String::as_str).collect();
                for field in unexpected {
                    let slip = Slip {
                        holder: error.instance_path().as_str().to_owned(),
                        field: field.clone(),
                        meant: nearest::nearest(field, &known).map(str::to_owned),
                    };
                    self.slips.push(slip);
                    let message = format!("`{field}` is not a field of {holder}");
                    self.report.key(
                        &path.key(field),
                        message,
                        nearest::mend(field, "the fields here", &known),
                    );
                }
            }
            Kind::Required { property } => {
                let field = property.as_str().unwrap_or_default().to_owned();
                self.missing.push((error.instance_path().as_str().to_owned(), path, field));
            }
            Kind::Type { kind } => {
                let message = format!("{holder} is {}, not {}", found(error.instance()), wanted(kind));
                self.report.value(&path, message, format!("write {} here", wanted(kind)));
            }
            Kind::Enum { options } => {
                let options: Vec<&str> =
                    options.as_array().into_iter().flatten().filter_map(Value::as_str).collect();
                let found = error.instance().as_str().unwrap_or_default();
                let message = format!("`{found}` is not a value of {holder}");
                self.report.value(&path, message, nearest::mend(found, "the values here", &options));
            }
            Kind::Format { format } if format == "secret" => {
                self.report.hidden(&path, format!("{holder} holds something else than a name"), how(format));
            }
            Kind::Format { format } => {
                let message = format!("`{}` is not what {holder} takes", shown(error.instance()));
                self.report.value(&path, message, how(format));
            }
            Kind::PropertyNames { error } => {
                let field = shown(error.instance());
                let mend = match error.kind() {
                    Kind::Format { format } => how(format),
                    _ => "choose another name",
                };
                self.report.key(&path.key(&field), format!("`{field}` is no name for {holder}"), mend);
            }
            // An optional value is `anyOf [it, null]`: what is wrong with it is what the first says.
            Kind::AnyOf { context } => match context.iter().find(|errors| !only_null(errors)) {
                Some(errors) => errors.iter().for_each(|error| self.explain(error)),
                None => self.other(&path, &holder, error),
            },
            _ => self.other(&path, &holder, error),
        }
    }

    /// A field that is missing because it is misspelt has been reported already.
    fn finish(mut self) -> Vec<Slip> {
        for (holder, path, field) in std::mem::take(&mut self.missing) {
            let misspelt = |slip: &Slip| slip.holder == holder && slip.meant.as_ref() == Some(&field);
            if !self.slips.iter().any(misspelt) {
                let message = format!("{} lacks `{field}`", self.holder(&path));
                self.report.value(&path, message, format!("add `{field}:`"));
            }
        }
        self.slips
    }

    fn other(&mut self, path: &Path, holder: &str, error: &ValidationError<'_>) {
        self.report.value(path, format!("{holder} does not fit: {error}"), "mend it as the message says");
    }

    /// What stands at `path`, in words.
    fn holder(&self, path: &Path) -> String {
        match path.0.as_slice() {
            [.., Step::Key(list), Step::Index(index)] => format!("entry {} of `{list}`", index + 1),
            [.., Step::Key(key)] => format!("`{key}`"),
            _ => self.what.to_owned(),
        }
    }

    /// The fields that the schema of an unexpected one knows.
    fn fields(&self, error: &ValidationError<'_>) -> Vec<String> {
        let holder = error.schema_path().as_str().rsplit_once('/').map_or("", |(holder, _)| holder);
        let properties = self.schema.pointer(holder).and_then(|schema| schema.get("properties"));
        properties.and_then(Value::as_object).map(|map| map.keys().cloned().collect()).unwrap_or_default()
    }
}

fn how(format: &str) -> &'static str {
    FORMATS.iter().find(|(name, ..)| *name == format).map_or("mend it", |(.., mend)| *mend)
}

fn only_null(errors: &[ValidationError<'_>]) -> bool {
    errors.iter().all(|error| matches!(error.kind(), Kind::Type { kind: TypeKind::Single(JsonType::Null) }))
}

fn shown(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn found(value: &Value) -> &'static str {
    match value {
        Value::Null => "empty",
        Value::Bool(_) => "`true` or `false`",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "a mapping",
    }
}

fn wanted(kind: &TypeKind) -> String {
    let word = |kind: JsonType| match kind {
        JsonType::Null => "nothing",
        JsonType::Boolean => "`true` or `false`",
        JsonType::Integer => "a whole number",
        JsonType::Number => "a number",
        JsonType::String => "a text",
        JsonType::Array => "a list",
        JsonType::Object => "a mapping",
    };
    match kind {
        TypeKind::Single(kind) => word(*kind).to_owned(),
        TypeKind::Multiple(kinds) => {
            let kinds: Vec<_> = kinds.iter().filter(|kind| *kind != JsonType::Null).map(word).collect();
            kinds.join(" or ")
        }
    }
}
