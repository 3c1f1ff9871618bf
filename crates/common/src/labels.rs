//! The 28 classes of the Human Protein Atlas image classification data (2018).

/// Names of the 28 classes, in order of class number.
pub const HPA_CLASSES: [&str; 28] = [
    "Nucleoplasm",
    "Nuclear membrane",
    "Nucleoli",
    "Nucleoli fibrillar center",
    "Nuclear speckles",
    "Nuclear bodies",
    "Endoplasmic reticulum",
    "Golgi apparatus",
    "Peroxisomes",
    "Endosomes",
    "Lysosomes",
    "Intermediate filaments",
    "Actin filaments",
    "Focal adhesion sites",
    "Microtubules",
    "Microtubule ends",
    "Cytokinetic bridge",
    "Mitotic spindle",
    "Microtubule organizing center",
    "Centrosome",
    "Lipid droplets",
    "Plasma membrane",
    "Cell junctions",
    "Mitochondria",
    "Aggresome",
    "Cytosol",
    "Cytoplasmic bodies",
    "Rods & rings",
];

/// What each of [`HPA_CLASSES`] is, for readers who do not work on cells.
const HPA_ABOUT: [&str; 28] = [
    "The nucleus between its bodies, where genes are transcribed. The most common label.",
    "The double membrane around the nucleus; seen as a thin bright ring.",
    "Large round bodies in the nucleus where ribosome assembly starts; a few in each cell.",
    "Small spots inside the nucleoli, where the genes of ribosomal RNA are transcribed.",
    "Irregular patches in the nucleus that store the factors for RNA splicing.",
    "Any of several kinds of small, sharp dots in the nucleus, such as Cajal and PML bodies.",
    "A net of membranes from the nucleus outwards, where proteins are folded; the yellow stain.",
    "Stacked membranes beside the nucleus that sort and forward proteins.",
    "Small round vesicles in which fatty acids and peroxides are broken down.",
    "Vesicles that carry material taken up by the cell, to be recycled or digested.",
    "Acidic vesicles in which the cell digests waste.",
    "Tough fibres, such as keratin and vimentin, that keep the cell in shape.",
    "Thin fibres, often bundled into straight cables; cells need them for shape and movement.",
    "Streaks at the cell's underside where actin cables are anchored to the surface below.",
    "Hollow fibres from the nucleus to the cell's edge that transport cargo; the red stain.",
    "The growing tips of microtubules: short comets near the cell's edge. Very rare.",
    "The last thin link between two cells that have nearly finished dividing.",
    "The spindle of microtubules that pulls the chromosomes apart in a dividing cell.",
    "The region beside the nucleus from which microtubules grow.",
    "One or two tiny dots beside the nucleus: the pair of centrioles and the material around them.",
    "Round stores of fat in the cytoplasm; often seen as small rings.",
    "The membrane around the cell; seen at its outline and in its folds.",
    "Connections between neighbouring cells: bright lines along shared borders.",
    "The cell's power plants: short threads spread all through the cytoplasm.",
    "A single heap of misfolded proteins beside the nucleus.",
    "The fluid that fills the cell around its organelles; an even haze outside the nucleus.",
    "Small dots in the cytoplasm, such as P-bodies, where RNA is stored or broken down.",
    "Rods and rings of a few micrometres, built of enzymes that make nucleotides. Very rare.",
];

/// Number of the 31,072 training samples that have each class (50,782 labels in total).
pub const HPA_COUNTS: [u32; 28] = [
    12885, 1254, 3621, 1561, 1858, 2513, 1008, 2822, 53, 45, 28, 1093, 688, 537, 1066, 21, 530,
    210, 902, 1482, 172, 3777, 802, 2965, 322, 8228, 328, 11,
];

/// Returns [`HPA_CLASSES`] as owned strings.
#[must_use]
pub fn hpa_classes() -> Vec<String> {
    HPA_CLASSES.map(String::from).to_vec()
}

/// Returns `count` class names: [`HPA_CLASSES`] for 28, else `Class 0`, `Class 1`, ….
#[must_use]
pub fn names_for(count: u16) -> Vec<String> {
    if usize::from(count) == HPA_CLASSES.len() {
        return hpa_classes();
    }
    (0..count).map(|class| format!("Class {class}")).collect()
}

/// Returns a short description of a class, if its name is one of [`HPA_CLASSES`].
#[must_use]
pub fn about(name: &str) -> Option<&'static str> {
    let class = HPA_CLASSES.iter().position(|known| *known == name)?;
    Some(HPA_ABOUT[class])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_add_up_to_the_published_number_of_labels() {
        assert_eq!(HPA_COUNTS.iter().sum::<u32>(), 50_782);
    }

    #[test]
    fn names_are_distinct() {
        let mut names = hpa_classes();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), 28);
    }

    #[test]
    fn every_class_has_its_own_description() {
        let descriptions: std::collections::BTreeSet<_> =
            HPA_CLASSES.iter().filter_map(|name| about(name)).collect();
        assert_eq!(descriptions.len(), 28);
        assert!(about("Centrosome").unwrap().contains("centrioles"));
        assert_eq!(about("cluster 7"), None);
    }
}
