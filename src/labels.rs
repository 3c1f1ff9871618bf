//! The 28 classes of the Human Protein Atlas image classification data (2018).

/// Names of the 28 classes; a class's number is its place here.
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

/// How many of the 31,072 training samples carry each class (50,782 labels in all).
pub const HPA_COUNTS: [u32; 28] = [
    12885, 1254, 3621, 1561, 1858, 2513, 1008, 2822, 53, 45, 28, 1093, 688, 537, 1066, 21, 530,
    210, 902, 1482, 172, 3777, 802, 2965, 322, 8228, 328, 11,
];

/// [`HPA_CLASSES`] as owned strings, in class order.
#[must_use]
pub fn hpa_classes() -> Vec<String> {
    HPA_CLASSES.map(String::from).to_vec()
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
}
