//! A cache of the text of providers: on a busy server a few providers have most of the records.

use super::{filter::Matcher, text};
use crate::records::{RecordsState, time::Now};

/// Maximum number of providers in the cache: a busy server knows 200,000.
const PROVIDERS_MAX: usize = 1 << 18;
/// Maximum size of their text. A provider takes some 200 bytes, and 8 kB with as many addresses as are kept.
const BYTES_MAX: usize = 32 << 20;
/// Text in front of the peer id in [`ProviderText::json`].
const BEFORE_NAME: &[u8] = br#"","provider":""#;

/// Text of a provider as its rows show it.
#[derive(Debug)]
pub struct ProviderText {
    id: u32,
    /// Whether the filter selects its rows.
    pub wanted: bool,
    name_len: usize,
    json: Box<[u8]>,
}

impl ProviderText {
    fn new(state: &RecordsState, id: u32, matcher: &Matcher, now: &Now) -> Option<Self> {
        let provider = state.book.get(id)?;
        let mut json = BEFORE_NAME.to_vec();
        text::push_base58(&mut json, &provider.peer.to_bytes());
        let name_len = json.len() - BEFORE_NAME.len();
        json.extend_from_slice(br#"","addresses":["#);
        for (n, address) in state.book.live_addresses(&provider, now).iter().enumerate() {
            if n > 0 {
                json.push(b',');
            }
            // Writing text into memory cannot fail.
            let _ = serde_json::to_writer(&mut json, &address.to_string());
        }
        json.push(b']');
        Some(Self { id, wanted: matcher.peer(&provider.peer), name_len, json: json.into() })
    }

    /// Returns its peer id as text.
    pub fn name(&self) -> &[u8] {
        &self.json[BEFORE_NAME.len()..][..self.name_len]
    }

    /// `","provider":…,"addresses":[…]`
    pub fn json(&self) -> &[u8] {
        &self.json
    }
}

/// A cache by peer number, in which a new provider takes the slot of another. See the module.
#[derive(Debug)]
pub struct ProviderTexts {
    at_hand: Vec<Option<ProviderText>>,
    bytes: usize,
}

impl ProviderTexts {
    /// Makes an empty cache, with a slot for each peer of the address book, up to the bounds above.
    pub fn new(state: &RecordsState) -> Self {
        let places = state.book.len().next_power_of_two().min(PROVIDERS_MAX);
        let mut at_hand = Vec::new();
        at_hand.resize_with(places, || None);
        Self { at_hand, bytes: 0 }
    }

    /// Returns the provider of this number as it is at `now` or was a little earlier; `None` if the address book lacks
    /// it.
    pub fn get(&mut self, state: &RecordsState, id: u32, matcher: &Matcher, now: &Now) -> Option<&ProviderText> {
        let place = id as usize % self.at_hand.len();
        if !matches!(&self.at_hand[place], Some(provider) if provider.id == id) {
            let provider = ProviderText::new(state, id, matcher, now);
            let bytes = provider.as_ref().map_or(0, |provider| provider.json.len());
            if self.bytes + bytes > BYTES_MAX {
                self.at_hand.iter_mut().for_each(|place| *place = None);
                self.bytes = 0;
            }
            let before = std::mem::replace(&mut self.at_hand[place], provider);
            self.bytes = self.bytes + bytes - before.map_or(0, |provider| provider.json.len());
        }
        self.at_hand[place].as_ref()
    }
}
