//! How a type of the machine becomes JSON and comes back.
//!
//! [`Mirror`] stands between the machine's types and serde, which they do not know. [`mirror!`]
//! implements it for a struct or an enum from one list of its fields: writing borrows, reading
//! moves, and both name every field, so that the compiler finds one that is not listed.

use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde::ser::{Error as _, Serialize, SerializeTuple, Serializer};
use serde_json::value::RawValue;

use crate::machine::id::{AgentName, AttemptId, Oid, StageName, TaskId};
use crate::machine::time::Time;

/// A type with a form on disk; what was written is read back equal.
pub(super) trait Mirror: Sized {
    /// Writes the form on disk.
    fn write<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error>;

    /// Reads the form on disk; an unknown or missing field is an error.
    fn read<'de, D: Deserializer<'de>>(from: D) -> Result<Self, D::Error>;
}

/// What is written, as serde wants it.
pub(super) struct Written<'a, T>(pub(super) &'a T);

/// What was read, as serde wants it.
pub(super) struct Read<T>(pub(super) T);

impl<T: Default + PartialEq> Written<'_, T> {
    /// Returns whether the value may be left out, because reading puts it there.
    pub(super) fn is_default(&self) -> bool {
        *self.0 == T::default()
    }
}

impl<T: Mirror> Serialize for Written<'_, T> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        self.0.write(to)
    }
}

impl<'de, T: Mirror> Deserialize<'de> for Read<T> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        T::read(from).map(Self)
    }
}

/// Mirrors types whose own form is the one on disk.
macro_rules! mirror_plain {
    ($($type:ty),+) => {$(
        impl Mirror for $type {
            fn write<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
                self.serialize(to)
            }

            fn read<'de, D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                Self::deserialize(from)
            }
        }
    )+};
}

mirror_plain!(bool, i32, u32, u64, usize, String);

/// Mirrors names as strings.
macro_rules! mirror_name {
    ($($type:ident),+) => {$(
        impl Mirror for $type {
            fn write<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
                to.serialize_str(self.as_str())
            }

            fn read<'de, D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                from.deserialize_str(NameVisitor { make: |text| $type::new(text) })
            }
        }
    )+};
}

mirror_name!(AgentName, AttemptId, Oid, StageName, TaskId);

/// Makes a name of a string without a copy between.
struct NameVisitor<T> {
    make: fn(&str) -> T,
}

impl<T> Visitor<'_> for NameVisitor<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a name")
    }

    fn visit_str<E>(self, text: &str) -> Result<T, E> {
        Ok((self.make)(text))
    }
}

impl Mirror for Time {
    fn write<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_u64(self.as_ms())
    }

    fn read<'de, D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        u64::deserialize(from).map(Self::from_ms)
    }
}

impl Mirror for f64 {
    fn write<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        if !self.is_finite() {
            return Err(S::Error::custom(format_args!("the number {self} has no form in JSON")));
        }
        to.serialize_f64(*self)
    }

    /// Parses the digits by the standard library, which is exact; `serde_json` by default is not.
    fn read<'de, D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let digits = Box::<RawValue>::deserialize(from)?;
        let number = digits.get().parse::<Self>().ok().filter(|number| number.is_finite());
        number.ok_or_else(|| D::Error::custom(format_args!("`{}` is not a number", digits.get())))
    }
}

impl<T: Mirror> Mirror for Option<T> {
    fn write<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        self.as_ref().map(Written).serialize(to)
    }

    fn read<'de, D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        Ok(Option::<Read<T>>::deserialize(from)?.map(|Read(value)| value))
    }
}

impl<T: Mirror> Mirror for Box<T> {
    fn write<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        T::write(self, to)
    }

    fn read<'de, D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        T::read(from).map(Self::new)
    }
}

impl<T: Mirror> Mirror for Arc<T> {
    fn write<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        T::write(self, to)
    }

    fn read<'de, D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        T::read(from).map(Self::new)
    }
}

impl<T: Mirror> Mirror for Vec<T> {
    fn write<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_seq(self.iter().map(Written))
    }

    fn read<'de, D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let items = Vec::<Read<T>>::deserialize(from)?;
        Ok(items.into_iter().map(|Read(item)| item).collect())
    }
}

impl<A: Mirror, B: Mirror> Mirror for (A, B) {
    fn write<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let mut pair = to.serialize_tuple(2)?;
        pair.serialize_element(&Written(&self.0))?;
        pair.serialize_element(&Written(&self.1))?;
        pair.end()
    }

    fn read<'de, D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let (Read(a), Read(b)) = Deserialize::deserialize(from)?;
        Ok((a, b))
    }
}

impl<T: Mirror> Mirror for BTreeMap<String, T> {
    fn write<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_map(self.iter().map(|(key, value)| (key, Written(value))))
    }

    fn read<'de, D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_map(MapVisitor(PhantomData))
    }
}

struct MapVisitor<T>(PhantomData<T>);

impl<'de, T: Mirror> Visitor<'de> for MapVisitor<T> {
    type Value = BTreeMap<String, T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<M: MapAccess<'de>>(self, mut fields: M) -> Result<Self::Value, M::Error> {
        let mut map = BTreeMap::new();
        while let Some((key, Read(value))) = fields.next_entry::<String, _>()? {
            if map.contains_key(&key) {
                return Err(M::Error::custom(format_args!("`{key}` is there twice")));
            }
            map.insert(key, value);
        }
        Ok(map)
    }
}

/// Reads an array into a map by the key each item carries; a key that is there twice is an error.
pub(super) fn read_keyed<'de, D, K, T>(
    from: D,
    key_of: fn(&T) -> &K,
) -> Result<BTreeMap<K, T>, D::Error>
where
    D: Deserializer<'de>,
    K: Clone + Ord + fmt::Display,
    T: Mirror,
{
    from.deserialize_seq(KeyedVisitor { key_of })
}

struct KeyedVisitor<K, T> {
    key_of: fn(&T) -> &K,
}

impl<'de, K: Clone + Ord + fmt::Display, T: Mirror> Visitor<'de> for KeyedVisitor<K, T> {
    type Value = BTreeMap<K, T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Self::Value, A::Error> {
        let mut map = BTreeMap::new();
        while let Some(Read(item)) = items.next_element()? {
            if let Some(old) = map.insert((self.key_of)(&item).clone(), item) {
                let key = (self.key_of)(&old);
                return Err(A::Error::custom(format_args!("`{key}` is there twice")));
            }
        }
        Ok(map)
    }
}

/// Implements [`Mirror`] for a type of the machine.
///
/// * `struct T { field: Type, … }`, then `optional { … }`: left out at their default; then
///   `derived { … }`: never written, at their default after reading.
/// * `words T { Variant, … }`: an enum without data, each variant a word.
/// * `enum T { Unit, Variant(name: Type), Variant { field: Type, … }, … }`.
macro_rules! mirror {
    (
        struct $core:ident { $($field:ident: $type:ty),+ $(,)? }
        $(optional { $($opt:ident: $opt_type:ty),+ $(,)? })?
        $(derived { $($derived:ident),+ $(,)? })?
    ) => {
        impl $crate::store::format::mirror::Mirror for $core {
            fn write<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
                use $crate::store::format::mirror::Written;
                #[derive(serde::Serialize)]
                struct Fields<'a> {
                    $($field: Written<'a, $type>,)+
                    $($(
                        #[serde(skip_serializing_if = "Written::is_default")]
                        $opt: Written<'a, $opt_type>,
                    )+)?
                }
                let $core { $($field,)+ $($($opt,)+)? $($($derived: _,)+)? } = self;
                let fields = Fields {
                    $($field: Written($field),)+
                    $($($opt: Written($opt),)+)?
                };
                serde::Serialize::serialize(&fields, to)
            }

            fn read<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                #[derive(serde::Deserialize)]
                #[serde(deny_unknown_fields)]
                struct Fields {
                    $(
                        #[serde(deserialize_with = "crate::store::format::mirror::Mirror::read")]
                        $field: $type,
                    )+
                    $($(
                        #[serde(default)]
                        #[serde(deserialize_with = "crate::store::format::mirror::Mirror::read")]
                        $opt: $opt_type,
                    )+)?
                }
                let Fields { $($field,)+ $($($opt,)+)? } = serde::Deserialize::deserialize(from)?;
                Ok($core {
                    $($field,)+
                    $($($opt,)+)?
                    $($($derived: Default::default(),)+)?
                })
            }
        }
    };

    (words $core:ident { $($variant:ident),+ $(,)? }) => {
        impl $crate::store::format::mirror::Mirror for $core {
            fn write<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
                #[derive(serde::Serialize)]
                #[serde(rename_all = "snake_case")]
                enum Word { $($variant),+ }
                let word = match self { $($core::$variant => Word::$variant,)+ };
                serde::Serialize::serialize(&word, to)
            }

            fn read<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                #[derive(serde::Deserialize)]
                #[serde(rename_all = "snake_case")]
                enum Word { $($variant),+ }
                let word = serde::Deserialize::deserialize(from)?;
                Ok(match word { $(Word::$variant => $core::$variant,)+ })
            }
        }
    };

    (enum $core:ident {
        $($variant:ident
            $(($bound:ident: $inner:ty))?
            $({ $($field:ident: $type:ty),+ $(,)? })?
        ),+ $(,)?
    }) => {
        impl $crate::store::format::mirror::Mirror for $core {
            fn write<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
                use $crate::store::format::mirror::Written;
                #[derive(serde::Serialize)]
                #[serde(rename_all = "snake_case")]
                enum Variant<'a> {
                    $($variant $((Written<'a, $inner>))? $({ $($field: Written<'a, $type>),+ })?),+
                }
                let variant = match self {
                    $($core::$variant $(($bound))? $({ $($field),+ })? => {
                        Variant::$variant $((Written($bound)))? $({ $($field: Written($field)),+ })?
                    })+
                };
                serde::Serialize::serialize(&variant, to)
            }

            fn read<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                #[derive(serde::Deserialize)]
                #[serde(rename_all = "snake_case", deny_unknown_fields)]
                enum Variant {
                    $($variant
                        $((
                            #[serde(
                                deserialize_with = "crate::store::format::mirror::Mirror::read"
                            )]
                            $inner
                        ))?
                        $({ $(
                            #[serde(
                                deserialize_with = "crate::store::format::mirror::Mirror::read"
                            )]
                            $field: $type
                        ),+ })?
                    ),+
                }
                let variant = serde::Deserialize::deserialize(from)?;
                Ok(match variant {
                    $(Variant::$variant $(($bound))? $({ $($field),+ })? => {
                        $core::$variant $(($bound))? $({ $($field),+ })?
                    })+
                })
            }
        }
    };
}

pub(super) use mirror;

#[cfg(test)]
mod tests {
    use super::*;

    fn read<T: Mirror>(text: &str) -> Result<T, serde_json::Error> {
        serde_json::from_str::<Read<T>>(text).map(|Read(value)| value)
    }

    #[test]
    fn numbers_are_read_back_to_the_last_bit() {
        let mut bits = 0x9e37_79b9_7f4a_7c15_u64;
        let edges = [0.0, -0.0, 0.1 + 0.2, f64::MAX, f64::MIN_POSITIVE, 5e-324, 1e21, 2.0];
        for turn in 0..20_000 {
            // A full-period generator: every exponent comes up.
            bits = bits.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(turn);
            let number = edges.get(turn as usize).copied().unwrap_or(f64::from_bits(bits));
            if !number.is_finite() {
                continue;
            }
            let text = serde_json::to_string(&Written(&number)).unwrap();
            let again = read::<f64>(&text).unwrap();
            assert_eq!(again.to_bits(), number.to_bits(), "{text}");
        }
    }

    #[test]
    fn numbers_that_json_cannot_hold_are_refused() {
        for number in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            assert!(serde_json::to_string(&Written(&number)).is_err());
        }
        for text in ["null", "\"1\"", "1e999", "[1]", "NaN"] {
            assert!(read::<f64>(text).is_err(), "{text}");
        }
        assert!(read::<u32>("4294967296").is_err());
        assert_eq!(read::<u64>(&u64::MAX.to_string()).ok(), Some(u64::MAX));
    }

    #[test]
    fn names_are_read_with_their_escapes() {
        let id = TaskId::new("a\"\u{1}\n🦀");
        let text = serde_json::to_string(&Written(&id)).unwrap();
        assert_eq!(read::<TaskId>(&text).ok(), Some(id));
        assert!(read::<TaskId>("1").is_err());
    }

    #[test]
    fn key_that_is_there_twice_is_refused() {
        let found = read::<BTreeMap<String, u32>>(r#"{"a":1,"a":2}"#).unwrap_err();
        assert!(found.to_string().contains("`a` is there twice"), "{found}");
    }

    #[test]
    fn pair_has_two_items() {
        assert_eq!(read::<(u32, String)>(r#"[1,"a"]"#).unwrap(), (1, "a".into()));
        assert!(read::<(u32, u32)>("[1]").is_err());
        assert!(read::<(u32, u32)>("[1,2,3]").is_err());
    }
}
