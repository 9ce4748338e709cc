//! How the words of `base` stand in CBOR, and how messages of a kind that is unknown are passed over.

use minicbor::{Decode, Decoder, Encode, Encoder, decode, encode};

use super::super::{WireError, frame};

/// A message as a frame.
pub(super) fn to_frame<T: Encode<()>>(message: &T) -> Vec<u8> {
    frame(&minicbor::to_vec(message).expect("encoding into memory cannot fail"))
}

/// Reads a frame's content, all of it; `what` is named by errors.
pub(super) fn from_frame<'b, T: Decode<'b, ()>>(what: &'static str, bytes: &'b [u8]) -> Result<T, WireError> {
    within(what, bytes)?;
    let mut decoder = Decoder::new(bytes);
    let message = decoder.decode().map_err(|e| cbor(what, &e))?;
    at_end(what, &decoder, bytes)?;
    Ok(message)
}

/// The same for an enumeration that later versions may add variants to.
pub(super) fn kind_from_frame<'b, T>(what: &'static str, bytes: &'b [u8]) -> Result<T, WireError>
where
    T: Decode<'b, ()> + From<UnknownKind>,
{
    within(what, bytes)?;
    let mut decoder = Decoder::new(bytes);
    let message = kind(&mut decoder, &mut ()).map_err(|e| cbor(what, &e))?;
    at_end(what, &decoder, bytes)?;
    Ok(message)
}

fn within(what: &'static str, bytes: &[u8]) -> Result<(), WireError> {
    match bytes.len() > super::FRAME_BYTES {
        true => Err(WireError::TooLong { what, bytes: bytes.len() as u64, limit: super::FRAME_BYTES as u64 }),
        false => Ok(()),
    }
}

fn at_end(what: &'static str, decoder: &Decoder<'_>, bytes: &[u8]) -> Result<(), WireError> {
    match decoder.position() == bytes.len() {
        true => Ok(()),
        false => Err(WireError::Field { what, why: "bytes follow it within its frame" }),
    }
}

fn cbor(what: &'static str, error: &decode::Error) -> WireError {
    WireError::Cbor { what, why: error.to_string() }
}

/// Number of a variant that this version does not know.
pub(super) struct UnknownKind(pub(super) u32);

/// Decodes a variant, or passes over one that is unknown. A variant is an array of its number and a map.
fn kind<'b, C, T>(d: &mut Decoder<'b>, ctx: &mut C) -> Result<T, decode::Error>
where
    T: Decode<'b, C> + From<UnknownKind>,
{
    let start = d.position();
    match T::decode(d, ctx) {
        Err(e) if e.is_unknown_variant() => {
            d.set_position(start);
            d.array()?;
            let number = d.u32()?;
            d.skip()?;
            Ok(UnknownKind(number).into())
        }
        known => known,
    }
}

type Written<W> = Result<(), encode::Error<<W as encode::Write>::Error>>;

/// A list of variants, each of which may be unknown.
pub(super) mod kinds {
    use super::*;

    pub(in super::super) fn encode<C, W: encode::Write, T: Encode<C>>(
        list: &Vec<T>,
        e: &mut Encoder<W>,
        ctx: &mut C,
    ) -> Written<W> {
        e.encode_with(list, ctx)?.ok()
    }

    pub(in super::super) fn decode<'b, C, T>(
        d: &mut Decoder<'b>,
        ctx: &mut C,
    ) -> Result<Vec<T>, decode::Error>
    where
        T: Decode<'b, C> + From<UnknownKind>,
    {
        let length = d.array()?.ok_or_else(|| decode::Error::message("a list of unknown length"))?;
        let mut list = Vec::new();
        for _ in 0..length {
            list.push(kind(d, ctx)?);
        }
        Ok(list)
    }
}

/// A digest as a multihash.
pub(super) mod digest {
    use super::*;
    use crate::base::Digest;

    pub(in super::super) fn encode<C, W: encode::Write>(
        digest: &Digest,
        e: &mut Encoder<W>,
        _: &mut C,
    ) -> Written<W> {
        e.bytes(&digest.to_multihash())?.ok()
    }

    pub(in super::super) fn decode<C>(d: &mut Decoder<'_>, _: &mut C) -> Result<Digest, decode::Error> {
        let at = d.position();
        let no_digest = || decode::Error::message("no multihash of a known function and its length").at(at);
        Digest::from_multihash(d.bytes()?).ok_or_else(no_digest)
    }
}

/// A list of digests.
pub(super) mod digests {
    use super::*;
    use crate::base::Digest;

    pub(in super::super) fn encode<C, W: encode::Write>(
        digests: &[Digest],
        e: &mut Encoder<W>,
        ctx: &mut C,
    ) -> Written<W> {
        e.array(digests.len() as u64)?;
        digests.iter().try_for_each(|digest| super::digest::encode(digest, e, ctx))
    }

    pub(in super::super) fn decode<C>(
        d: &mut Decoder<'_>,
        ctx: &mut C,
    ) -> Result<Vec<Digest>, decode::Error> {
        let length = d.array()?.ok_or_else(|| decode::Error::message("a list of unknown length"))?;
        let mut digests = Vec::new();
        for _ in 0..length {
            digests.push(super::digest::decode(d, ctx)?);
        }
        Ok(digests)
    }
}

/// SHA-256 digests one after the other, as one string of bytes.
pub(super) mod hashes {
    use super::*;
    use crate::base::Sha256;

    pub(in super::super) fn encode<C, W: encode::Write>(
        hashes: &[Sha256],
        e: &mut Encoder<W>,
        _: &mut C,
    ) -> Written<W> {
        let bytes: Vec<u8> = hashes.iter().flat_map(|hash| hash.0).collect();
        e.bytes(&bytes)?.ok()
    }

    pub(in super::super) fn decode<C>(d: &mut Decoder<'_>, _: &mut C) -> Result<Vec<Sha256>, decode::Error> {
        let at = d.position();
        let (hashes, rest) = d.bytes()?.as_chunks::<32>();
        match rest.is_empty() {
            true => Ok(hashes.iter().map(|hash| Sha256(*hash)).collect()),
            false => Err(decode::Error::message("hashes of 32 bytes do not fill it").at(at)),
        }
    }
}

/// A binary CID.
pub(super) mod cid {
    use super::*;
    use crate::base::{Cid, parse_cid};

    pub(in super::super) fn encode<C, W: encode::Write>(
        cid: &Cid,
        e: &mut Encoder<W>,
        _: &mut C,
    ) -> Written<W> {
        e.bytes(&cid.to_bytes())?.ok()
    }

    pub(in super::super) fn decode<C>(d: &mut Decoder<'_>, _: &mut C) -> Result<Cid, decode::Error> {
        let at = d.position();
        parse_cid(d.bytes()?).map_err(|e| decode::Error::message(e).at(at))
    }
}

/// A binary CID that may be absent.
pub(super) mod maybe_cid {
    use super::*;
    use crate::base::Cid;

    pub(in super::super) fn encode<C, W: encode::Write>(
        cid: &Option<Cid>,
        e: &mut Encoder<W>,
        ctx: &mut C,
    ) -> Written<W> {
        match cid {
            Some(cid) => super::cid::encode(cid, e, ctx),
            None => e.null()?.ok(),
        }
    }

    pub(in super::super) fn decode<C>(
        d: &mut Decoder<'_>,
        ctx: &mut C,
    ) -> Result<Option<Cid>, decode::Error> {
        match d.datatype()? {
            minicbor::data::Type::Null => d.skip().map(|()| None),
            _ => super::cid::decode(d, ctx).map(Some),
        }
    }

    pub(in super::super) fn is_nil(cid: &Option<Cid>) -> bool {
        cid.is_none()
    }

    pub(in super::super) fn nil() -> Option<Option<Cid>> {
        Some(None)
    }
}

/// A block's bytes, which may be absent.
pub(super) mod maybe_bytes {
    use super::*;
    use bytes::Bytes;

    pub(in super::super) fn encode<C, W: encode::Write>(
        bytes: &Option<Bytes>,
        e: &mut Encoder<W>,
        _: &mut C,
    ) -> Written<W> {
        match bytes {
            Some(bytes) => e.bytes(bytes)?.ok(),
            None => e.null()?.ok(),
        }
    }

    pub(in super::super) fn decode<C>(
        d: &mut Decoder<'_>,
        _: &mut C,
    ) -> Result<Option<Bytes>, decode::Error> {
        match d.datatype()? {
            minicbor::data::Type::Null => d.skip().map(|()| None),
            _ => Ok(Some(Bytes::copy_from_slice(d.bytes()?))),
        }
    }

    pub(in super::super) fn is_nil(bytes: &Option<Bytes>) -> bool {
        bytes.is_none()
    }

    pub(in super::super) fn nil() -> Option<Option<Bytes>> {
        Some(None)
    }
}

/// A peer id: a multihash (libp2p, "Peer Ids and Keys").
pub(super) mod peer {
    use super::*;
    use crate::base::PeerId;

    pub(in super::super) fn encode<C, W: encode::Write>(
        peer: &PeerId,
        e: &mut Encoder<W>,
        _: &mut C,
    ) -> Written<W> {
        e.bytes(&peer.to_bytes())?.ok()
    }

    pub(in super::super) fn decode<C>(d: &mut Decoder<'_>, _: &mut C) -> Result<PeerId, decode::Error> {
        let at = d.position();
        PeerId::from_bytes(d.bytes()?).map_err(|_| decode::Error::message("no peer id").at(at))
    }
}

/// A peer id that may be absent.
pub(super) mod maybe_peer {
    use super::*;
    use crate::base::PeerId;

    pub(in super::super) fn encode<C, W: encode::Write>(
        peer: &Option<PeerId>,
        e: &mut Encoder<W>,
        ctx: &mut C,
    ) -> Written<W> {
        match peer {
            Some(peer) => super::peer::encode(peer, e, ctx),
            None => e.null()?.ok(),
        }
    }

    pub(in super::super) fn decode<C>(
        d: &mut Decoder<'_>,
        ctx: &mut C,
    ) -> Result<Option<PeerId>, decode::Error> {
        match d.datatype()? {
            minicbor::data::Type::Null => d.skip().map(|()| None),
            _ => super::peer::decode(d, ctx).map(Some),
        }
    }

    pub(in super::super) fn is_nil(peer: &Option<PeerId>) -> bool {
        peer.is_none()
    }

    pub(in super::super) fn nil() -> Option<Option<PeerId>> {
        Some(None)
    }
}
