//! The parts of the protobuf wire format that messages and IPNS records use.

use super::DecodeError;

/// A field's value, undecoded.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Value<'a> {
    /// A number.
    Varint(u64),
    /// A 32- or 64-bit number as its bytes, lowest first. No DHT message has such a field.
    Fixed(&'a [u8]),
    /// Bytes, text, or a nested message.
    Bytes(&'a [u8]),
}

/// An iterator over the fields of a message in wire order. It ends after the first error.
#[derive(Clone, Debug)]
pub struct Fields<'a> {
    rest: &'a [u8],
}

impl<'a> Fields<'a> {
    /// Iterates over the fields of a message, given without its length prefix.
    pub fn new(body: &'a [u8]) -> Self {
        Self { rest: body }
    }

    fn field(&mut self) -> Result<(u32, Value<'a>), DecodeError> {
        let tag = u32::try_from(self.varint()?).map_err(|_| DecodeError("field number too large"))?;
        let number = tag >> 3;
        if number == 0 {
            return Err(DecodeError("field number 0"));
        }
        let value = match tag & 7 {
            0 => Value::Varint(self.varint()?),
            1 => self.take(8).map(Value::Fixed)?,
            2 => {
                let length = usize::try_from(self.varint()?).map_err(|_| DecodeError("length too large"))?;
                Value::Bytes(self.take(length)?)
            }
            5 => self.take(4).map(Value::Fixed)?,
            3 | 4 => return Err(DecodeError("groups are not used")),
            _ => return Err(DecodeError("unknown wire type")),
        };
        Ok((number, value))
    }

    /// Protobuf's varint: at most 64 bits in ten bytes, not necessarily minimal.
    fn varint(&mut self) -> Result<u64, DecodeError> {
        let mut value = 0u64;
        for (index, &byte) in self.rest.iter().enumerate() {
            // The tenth byte has room for one bit.
            if index == 9 && byte > 1 {
                return Err(DecodeError("number too large"));
            }
            value |= u64::from(byte & 0x7f) << (7 * index);
            if byte & 0x80 == 0 {
                self.rest = &self.rest[index + 1..];
                return Ok(value);
            }
        }
        Err(DecodeError("ends inside a number"))
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], DecodeError> {
        let (taken, rest) = self.rest.split_at_checked(length).ok_or(DecodeError("ends inside a field"))?;
        self.rest = rest;
        Ok(taken)
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Result<(u32, Value<'a>), DecodeError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let field = self.field();
        if field.is_err() {
            self.rest = &[];
        }
        Some(field)
    }
}
