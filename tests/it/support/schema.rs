//! Whether a value is of a JSON Schema, as far as ours go; the unit tests include this file too.

use serde_json::Value;

/// Returns why `value` is not of the schema `rule`; knows the words that our schemas use.
pub(crate) fn fault(root: &Value, rule: &Value, value: &Value) -> Option<String> {
    rule.as_object().unwrap().iter().find_map(|(word, with)| {
        let is_right = match word.as_str() {
            "$ref" => {
                let target = root.pointer(with.as_str().unwrap().strip_prefix('#').unwrap());
                return fault(root, target.unwrap(), value);
            }
            "properties" => {
                let mut parts = with.as_object().unwrap().iter();
                return parts.find_map(|(key, rule)| fault(root, rule, value.get(key)?));
            }
            "items" => {
                return value.as_array()?.iter().find_map(|item| fault(root, with, item));
            }
            "prefixItems" => {
                let mut pairs = with.as_array().unwrap().iter().zip(value.as_array()?);
                return pairs.find_map(|(rule, item)| fault(root, rule, item));
            }
            "additionalProperties" => {
                let known = rule.get("properties");
                let is_extra = |key: &str| known.is_none_or(|known| known.get(key).is_none());
                let mut extra = value.as_object()?.iter().filter(|(key, _)| is_extra(key));
                return match with {
                    Value::Bool(false) => extra.next().map(|(key, _)| format!("`{key}` is extra")),
                    rule => extra.find_map(|(_, item)| fault(root, rule, item)),
                };
            }
            "oneOf" => {
                let rules = with.as_array().unwrap().iter();
                rules.filter(|rule| fault(root, rule, value).is_none()).count() == 1
            }
            "required" => {
                let keys = with.as_array().unwrap();
                keys.iter().all(|key| value.get(key.as_str().unwrap()).is_some())
            }
            "type" => has_type(with.as_str().unwrap(), value),
            "const" => value == with,
            "enum" => with.as_array().unwrap().contains(value),
            "pattern" => {
                let pattern = regex::Regex::new(with.as_str().unwrap()).unwrap();
                value.as_str().is_some_and(|text| pattern.is_match(text))
            }
            "minimum" => value.as_f64() >= with.as_f64(),
            "maximum" => value.as_f64() <= with.as_f64(),
            "minItems" => value.as_array().map(Vec::len) >= with.as_u64().map(|n| n as usize),
            "maxItems" => value.as_array().map(Vec::len) <= with.as_u64().map(|n| n as usize),
            "$schema" | "$defs" | "title" | "description" => true,
            unknown => panic!("the schema uses `{unknown}`, which this test does not know"),
        };
        (!is_right).then(|| format!("{value} is not `{word}` {with}"))
    })
}

fn has_type(name: &str, value: &Value) -> bool {
    match name {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "null" => value.is_null(),
        "number" => value.is_number(),
        "integer" => value.is_i64() || value.is_u64(),
        unknown => panic!("the schema uses type `{unknown}`"),
    }
}
