//! As much of protobuf as one message needs (protobuf encoding, wire types 0, 1, 2 and 5).

/// The fields of a message that have a length, each with its number; the others are passed over. `None` ends a message
/// that does not decode.
pub(super) struct Fields<'a> {
    rest: &'a [u8],
}

impl<'a> Fields<'a> {
    pub(super) fn of(message: &'a [u8]) -> Self {
        Self { rest: message }
    }

    fn field(&mut self) -> Option<Option<(u64, &'a [u8])>> {
        let tag = self.varint()?;
        match tag & 7 {
            0 => self.varint().map(|_| None),
            1 => self.take(8).map(|_| None),
            2 => {
                let length = usize::try_from(self.varint()?).ok()?;
                Some(Some((tag >> 3, self.take(length)?)))
            }
            5 => self.take(4).map(|_| None),
            // Groups have been deprecated since before this message was made.
            _ => None,
        }
    }

    fn varint(&mut self) -> Option<u64> {
        let mut value = 0_u64;
        for shift in (0..64).step_by(7) {
            let [byte] = *self.take(1)? else { return None };
            value |= u64::from(byte & 0x7F).checked_shl(shift)?;
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }

    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(length)?;
        self.rest = rest;
        Some(taken)
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Result<(u64, &'a [u8]), ()>;

    fn next(&mut self) -> Option<Self::Item> {
        while !self.rest.is_empty() {
            match self.field() {
                Some(Some(field)) => return Some(Ok(field)),
                Some(None) => {}
                None => {
                    self.rest = &[];
                    return Some(Err(()));
                }
            }
        }
        None
    }
}

/// DER values, one behind the other, each a sequence.
pub(super) fn sequences(mut der: &[u8]) -> Option<Vec<&[u8]>> {
    let mut found = Vec::new();
    while let [tag, first, rest @ ..] = der {
        let (header, length) = match usize::from(*first) {
            short @ 0..=0x7F => (2, short),
            // Of one to four bytes; the indefinite form is none of DER.
            long @ 0x81..=0x84 => {
                let bytes = rest.get(..long - 0x80)?;
                (2 + bytes.len(), bytes.iter().fold(0, |sum, byte| sum << 8 | usize::from(*byte)))
            }
            _ => return None,
        };
        if *tag != 0x30 {
            return None;
        }
        let (value, behind) = der.split_at_checked(header.checked_add(length)?)?;
        found.push(value);
        der = behind;
    }
    der.is_empty().then_some(found)
}
