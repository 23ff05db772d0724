//! The types of built-in kinds: in flows their table, out come fields for protobuf, and schemas for
//! all else.

use std::{
    collections::HashMap,
    sync::{Arc, LazyLock},
};

use serde_json::{Map, Value, json};

/// How often a field is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shape {
    One,
    List,
    Map,
}

/// What a field is of.
#[derive(Debug)]
pub(crate) enum Of {
    Scalar(char),
    Type(String),
}

/// A field of a type, in the table's terms.
#[derive(Debug)]
pub(crate) struct Field {
    pub(crate) name: &'static str,
    pub(crate) number: u64,
    pub(crate) shape: Shape,
    pub(crate) of: Of,
    flags: &'static str,
}

impl Field {
    fn parse(text: &'static str, type_of: impl Fn(&str) -> String) -> Option<Self> {
        let (name, rest) = text.split_once('=')?;
        let (number, rest) = rest.split_once(':')?;
        let (shape, rest) = match rest.as_bytes().first()? {
            b'*' => (Shape::List, &rest[1..]),
            b'%' => (Shape::Map, &rest[1..]),
            _ => (Shape::One, rest),
        };
        let (of, flags) = rest.split_at(rest.find(['{', '~', '@', '?', '!']).unwrap_or(rest.len()));
        Some(Self {
            name,
            number: number.parse().ok()?,
            shape,
            of: match of.len() {
                1 => Of::Scalar(of.chars().next()?),
                _ => Of::Type(type_of(of)),
            },
            flags,
        })
    }

    /// Whether JSON has the fields of its type in its stead.
    pub(crate) fn is_inline(&self) -> bool {
        self.name == "<"
    }

    /// Whether Go has a pointer, which may be none.
    pub(crate) fn is_pointer(&self) -> bool {
        self.flags.contains('?')
    }

    pub(crate) fn is_required(&self) -> bool {
        self.flags.contains('!')
    }

    fn schema(&self) -> Value {
        let one = match &self.of {
            Of::Type(name) => json!({"$ref": format!("{REFERENCE}{name}")}),
            Of::Scalar(scalar) => match scalar {
                'b' => json!({"type": "boolean"}),
                'i' => json!({"type": "integer", "format": "int32"}),
                'l' => json!({"type": "integer", "format": "int64"}),
                'd' => json!({"type": "number", "format": "double"}),
                'y' => json!({"type": "string", "format": "byte"}),
                'T' => json!({"type": "string", "format": "date-time"}),
                'M' => json!({"type": "string", "format": "date-time", "pattern": MICROSECONDS}),
                'I' => json!({"x-kubernetes-int-or-string": true, "format": "int-or-string",
                    "oneOf": [{"type": "integer"}, {"type": "string"}]}),
                'Q' => {
                    json!({"format": "quantity", "oneOf": [{"type": "string"}, {"type": "number"}]})
                }
                'X' => json!({"type": "array", "items": {"type": "string"}}),
                'R' | 'J' => json!({"x-kubernetes-preserve-unknown-fields": true}),
                _ => json!({"type": "string"}),
            },
        };
        let mut schema = match self.shape {
            Shape::One => one,
            Shape::List => json!({"type": "array", "items": one}),
            Shape::Map => json!({"type": "object", "additionalProperties": one}),
        };
        let inside = |text: &'static str| text.split_once('{')?.1.split_once('}');
        if let Some((keys, _)) = inside(self.flags) {
            let keys: Vec<_> = keys.split(',').filter(|key| !key.is_empty()).collect();
            schema["x-kubernetes-list-type"] = if keys.is_empty() { "set" } else { "map" }.into();
            if let [first, ..] = keys[..] {
                schema["x-kubernetes-list-map-keys"] = json!(keys);
                schema["x-kubernetes-patch-merge-key"] = first.into();
            }
            if !self.flags.contains('~') {
                schema["x-kubernetes-patch-strategy"] = "merge".into();
            }
        }
        if self.flags.contains('@') {
            let of_items = self.shape == Shape::List;
            let at = if of_items {
                &mut schema["items"]
            } else {
                &mut schema
            };
            at["x-kubernetes-map-type"] = "atomic".into();
        }
        schema
    }
}

/// What times end with that have six digits behind the second.
const MICROSECONDS: &str = r"\.\d{6}(Z|[-+]\d{2}:\d{2})$";

/// Where OpenAPI 3 has schemas.
pub(crate) const REFERENCE: &str = "#/components/schemas/";

/// All types, by the names that OpenAPI has for them.
#[derive(Debug, Default)]
struct Types {
    fields: HashMap<String, Arc<[Field]>>,
    schemas: Map<String, Value>,
    /// By `apiVersion` and kind.
    names: HashMap<&'static str, HashMap<&'static str, String>>,
    /// Of packages.
    prefixes: HashMap<&'static str, &'static str>,
}

static TYPES: LazyLock<Types> = LazyLock::new(|| {
    let lines = || {
        include_str!("types.txt")
            .lines()
            .filter(|line| !line.starts_with('#'))
    };
    let package = |line: &'static str| {
        let mut parts = line.strip_prefix('[')?.strip_suffix(']')?.split(' ');
        Some((parts.next()?, parts.next()?, parts.next()?))
    };
    let packages: Vec<_> = lines().filter_map(package).collect();
    let mut types = Types::default();
    let (mut version, mut prefix) = ("", "");
    for line in lines() {
        if let Some((package, of, name)) = package(line) {
            (version, prefix) = (of, name);
            types.prefixes.insert(package, name);
            continue;
        }
        let (name, fields) = line.split_once(' ').unwrap_or((line, ""));
        let type_of = |text: &str| match text.split_once('.') {
            None => format!("{prefix}.{text}"),
            Some((of, name)) => {
                let package = packages.iter().find(|package| package.0 == of);
                format!("{}.{name}", package.map_or("", |package| package.2))
            }
        };
        let fields = fields
            .split_whitespace()
            .filter_map(|field| Field::parse(field, type_of));
        let full = format!("{prefix}.{name}");
        types.fields.insert(full.clone(), fields.collect());
        types.names.entry(version).or_default().insert(name, full);
    }
    let names = types.names.iter().flat_map(|(version, names)| {
        names
            .iter()
            .map(move |(name, full)| (*version, *name, full))
    });
    for (version, name, full) in names {
        let mut schema = json!({"type": "object"});
        let mut required = Vec::new();
        describe(&types, full, &mut schema, &mut required);
        if !required.is_empty() {
            schema["required"] = required.into();
        }
        let is_root = schema["properties"]["metadata"].is_object()
            && !name.ends_with("Spec")
            && name != "PersistentVolumeClaimTemplate";
        if is_root || name == "DeleteOptions" {
            schema["properties"]["apiVersion"] = json!({"type": "string"});
            schema["properties"]["kind"] = json!({"type": "string"});
            let (group, version) = version.split_once('/').unwrap_or(("", version));
            schema["x-kubernetes-group-version-kind"] =
                json!([{"group": group, "version": version, "kind": name}]);
        }
        types.schemas.insert(full.clone(), schema);
    }
    types
});

/// Adds the fields of a type to a schema.
fn describe(types: &Types, name: &str, schema: &mut Value, required: &mut Vec<Value>) {
    for field in types
        .fields
        .get(name)
        .into_iter()
        .flat_map(|fields| fields.iter())
    {
        match &field.of {
            Of::Type(inner) if field.is_inline() => describe(types, inner, schema, required),
            _ => schema["properties"][field.name] = field.schema(),
        }
        if field.is_required() {
            required.push(field.name.into());
        }
    }
}

/// The name of a kind's type; `None` if the table has none.
pub(crate) fn name(api_version: &str, kind: &str) -> Option<&'static str> {
    let known = |version: &str| TYPES.names.get(version)?.get(kind).map(String::as_str);
    // Options and Statuses come in every version.
    known(api_version).or_else(|| known("meta.k8s.io/v1").filter(|_| api_version == "v1"))
}

pub(crate) fn fields(name: &str) -> &'static [Field] {
    TYPES.fields.get(name).map_or(&[], |fields| fields)
}

/// A field of a type, by its name in JSON.
pub(crate) fn field(of: &str, name: &str) -> Option<&'static Field> {
    fields(of).iter().find_map(|field| match &field.of {
        Of::Type(inner) if field.is_inline() => self::field(inner, name),
        _ => (field.name == name).then_some(field),
    })
}

/// The name that OpenAPI has for a type of the table, such as `core.Pod`.
pub(crate) fn full(name: &str) -> String {
    let (package, name) = name.split_once('.').unwrap_or(("", name));
    let prefix = TYPES.prefixes.get(package).unwrap_or(&"");
    format!("{prefix}.{name}")
}

/// The schema of a type; null if there is none.
pub(crate) fn schema(name: &str) -> &'static Value {
    TYPES.schemas.get(name).unwrap_or(&Value::Null)
}

/// The schemas of a group's version, and of all that they are made of.
pub(crate) fn closure(names: impl IntoIterator<Item = &'static str>) -> Map<String, Value> {
    let mut found = Map::new();
    let mut left: Vec<_> = names.into_iter().collect();
    while let Some(name) = left.pop() {
        if found.contains_key(name) {
            continue;
        }
        found.insert(name.to_owned(), schema(name).clone());
        left.extend(fields(name).iter().filter_map(|field| match &field.of {
            Of::Type(name) => Some(name.as_str()),
            Of::Scalar(_) => None,
        }));
    }
    found
}
