//! From the bytes of all files to material.

use super::{
    Files, Holds,
    read::{Bytes, Contents, text},
};
use crate::{
    error::{MaterialError, MaterialErrorKind},
    id::TrustDomain,
    material::{Material, Origin, Trust, bundle, certificates, crls, private_key},
    svid,
};

// === impl Files ===

impl Files {
    /// The material, and our own trust domain. Where only the own half is bad, the error carries the other.
    pub(super) fn parse(
        &self,
        contents: &Contents,
        last_own: Option<&TrustDomain>,
    ) -> Result<(TrustDomain, Material), MaterialError> {
        let [cert, key, trust @ ..] = contents.0.as_slice() else {
            return Err(MaterialError::new(MaterialErrorKind::Unsettled));
        };
        match self.own(cert, key) {
            Ok((own, material)) => {
                let trust = self.trust(trust, Some(&own))?;
                Ok((own, Material { trust, ..material }))
            }
            Err(error) => match self.trust(trust, last_own) {
                Ok(trust) if last_own.is_some() => Err(error.with_trust(trust)),
                Ok(_) | Err(_) => Err(error),
            },
        }
    }

    fn own(&self, cert: &Bytes, key: &Bytes) -> Result<(TrustDomain, Material), MaterialError> {
        let chain = certificates(text(cert, &self.cert)?).map_err(|e| e.in_file(&self.cert))?;
        let key = private_key(text(key, &self.key)?).map_err(|e| e.in_file(&self.key))?;
        let bad = |kind| MaterialError::new(kind).in_file(&self.cert);
        let leaf = chain.first().ok_or_else(|| bad(MaterialErrorKind::NoCertificate))?;
        let own =
            svid::check_leaf(leaf).map_err(|why| bad(MaterialErrorKind::OwnCertificate(why)))?;
        let bundles = self.trust.iter().filter(|(holds, _)| *holds != Holds::Lists);
        let mut bundles = bundles.map(|(_, path)| path.clone());
        let mut material = Material::new(chain, key);
        material.origin = Some(Origin {
            cert: self.cert.clone(),
            key: self.key.clone(),
            bundle: bundles.next().filter(|_| bundles.next().is_none()),
        });
        Ok((own.id().trust_domain(), material))
    }

    fn trust(&self, files: &[Bytes], own: Option<&TrustDomain>) -> Result<Trust, MaterialError> {
        let mut trust = Trust::default();
        for ((holds, path), bytes) in self.trust.iter().zip(files) {
            let text = text(bytes, path)?;
            let in_file = |error: MaterialError| error.in_file(path);
            match (holds, own) {
                (Holds::OwnBundle, Some(own)) => {
                    add(&mut trust, own.clone(), bundle(text).map_err(in_file)?)
                        .map_err(in_file)?;
                }
                // Before the first good certificate nobody asks for the bundles alone.
                (Holds::OwnBundle, None) => {}
                (Holds::Bundle(domain), _) => {
                    add(&mut trust, domain.clone(), bundle(text).map_err(in_file)?)
                        .map_err(in_file)?;
                }
                #[cfg(feature = "bundle-map")]
                (Holds::Map, _) => {
                    let map = crate::bundle_map::BundleMap::parse(text);
                    let bad = |why: crate::bundle_map::InvalidBundleMap| {
                        MaterialError::new(MaterialErrorKind::BadBundleMap(why.to_string()))
                    };
                    for (domain, roots) in map.map_err(bad).map_err(in_file)? {
                        add(&mut trust, domain, roots).map_err(in_file)?;
                    }
                }
                (Holds::Lists, _) => trust.crls.extend(crls(text).map_err(in_file)?),
            }
        }
        Ok(trust)
    }
}

fn add(
    trust: &mut Trust,
    domain: TrustDomain,
    roots: Vec<rustls_pki_types::CertificateDer<'static>>,
) -> Result<(), MaterialError> {
    match trust.bundles.insert(domain.clone(), roots) {
        None => Ok(()),
        Some(_) => Err(MaterialError::new(MaterialErrorKind::TwoBundles(domain))),
    }
}
