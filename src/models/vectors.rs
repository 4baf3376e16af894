//! Vectors as the OpenAI format has them, and whether they are any.

use serde_json::{Value, json};

use crate::models::error::{Kind, ModelError};
use crate::models::wire::{Reply, Request};

/// The body of a request for vectors.
pub(super) fn body(request: &Request) -> Value {
    let mut body = json!({"model": request.model, "input": request.texts});
    if let Some(wanted) = request.dimensions {
        body["dimensions"] = json!(wanted);
    }
    body
}

/// The vectors in the order of `index`; servers that leave it out or repeat it mean the order of the list.
pub(super) fn read(data: &Value) -> Vec<Vec<f32>> {
    #[expect(
        clippy::cast_possible_truncation,
        reason = "vectors are of this precision; too much is infinite"
    )]
    let coordinate = |value: &Value| value.as_f64().map_or(f32::NAN, |number| number as f32);
    let listed = data.as_array().into_iter().flatten().enumerate().map(|(place, item)| {
        let vector = item["embedding"].as_array().into_iter().flatten().map(coordinate);
        (item["index"].as_u64().unwrap_or(place as u64), vector.collect())
    });
    let mut listed: Vec<(u64, Vec<f32>)> = listed.collect();
    listed.sort_by_key(|(index, _)| *index);
    listed.into_iter().map(|(_, vector)| vector).collect()
}

impl Reply {
    /// One sound vector for each of `texts`, all of the same size, or why not.
    pub(crate) fn embedded(&self, texts: usize) -> Result<&[Vec<f32>], ModelError> {
        if let Some(error) = &self.error {
            return Err(error.clone());
        }
        let invalid = |why: String| Err(ModelError::new(Kind::Invalid, why));
        if self.vectors.len() != texts {
            return invalid(format!("it gave {} vectors for {texts} texts", self.vectors.len()));
        }
        let size = self.vectors.first().map_or(0, Vec::len);
        let sound = |vector: &Vec<f32>| {
            vector.len() == size
                && vector.iter().all(|coordinate| coordinate.is_finite())
                && vector.iter().any(|coordinate| *coordinate != 0.0)
        };
        match self.vectors.iter().all(sound) {
            true => Ok(&self.vectors),
            false => invalid("it gave vectors that are none".to_owned()),
        }
    }
}
