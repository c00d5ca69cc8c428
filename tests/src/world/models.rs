//! Models fitted on public recordings with `jukebox-tests fit`; the recordings themselves are not here.
//!
//! `bus`, `tram`, `metro`, `train`, `car`: Telenor 3G around Oslo 2010-11 (H. Riiser, P. Vigmostad, C. Griwodz, P. Halvorsen,
//! "Commute path bandwidth traces from 3G networks: analysis and applications", ACM MMSys 2013). `umts` and `umts up`: a
//! carrier in the United States, driving, 2012-13 (K. Winstein, A. Sivaraman, H. Balakrishnan, "Stochastic Forecasts Achieve High
//! Throughput and Low Delay over Cellular Networks", NSDI 2013).

use std::borrow::Cow;

use super::weather::Model;

/// One for each recording.
#[rustfmt::skip]
pub const MODELS: [Model; 7] = [
    Model { name: Cow::Borrowed("bus"), levels: [95066, 205848, 252956, 297143, 399468, 531127],
        next: [[721, 81, 98, 16, 16, 65], [112, 612, 209, 64, 0, 0], [48, 193, 354, 322, 64, 16], [64, 96, 241, 387, 209, 0], [32, 0, 80, 161, 532, 193], [16, 16, 0, 49, 180, 737]],
        fades: [26, 138], residue: 187 },
    Model { name: Cow::Borrowed("tram"), levels: [19250, 56942, 92285, 117710, 135938, 173910],
        next: [[822, 153, 19, 4, 0, 0], [165, 613, 160, 33, 23, 4], [14, 165, 485, 254, 51, 28], [4, 47, 226, 363, 273, 84], [0, 9, 70, 268, 400, 250], [0, 14, 33, 71, 252, 628]],
        fades: [15, 1666], residue: 831 },
    Model { name: Cow::Borrowed("metro"), levels: [8243, 19502, 49480, 83092, 109767, 155263],
        next: [[800, 151, 13, 27, 0, 6], [140, 753, 100, 0, 6, 0], [52, 86, 629, 172, 52, 6], [0, 19, 211, 556, 198, 13], [0, 0, 39, 238, 503, 218], [0, 0, 0, 6, 246, 746]],
        fades: [77, 465], residue: 144 },
    Model { name: Cow::Borrowed("train"), levels: [16662, 51530, 88209, 135145, 195009, 335199],
        next: [[807, 154, 17, 13, 0, 6], [174, 590, 191, 36, 0, 6], [13, 211, 530, 201, 33, 10], [3, 36, 228, 546, 177, 6], [3, 6, 30, 187, 577, 194], [0, 0, 3, 10, 213, 772]],
        fades: [39, 144], residue: 163 },
    Model { name: Cow::Borrowed("car"), levels: [3326, 9337, 17961, 64669, 143056, 266646],
        next: [[845, 134, 10, 10, 0, 0], [130, 664, 189, 13, 0, 0], [13, 189, 719, 70, 4, 1], [4, 16, 79, 664, 205, 30], [0, 0, 0, 220, 583, 195], [0, 0, 1, 21, 206, 769]],
        fades: [106, 598], residue: 230 },
    Model { name: Cow::Borrowed("umts"), levels: [28250, 105730, 201530, 283350, 360440, 598726],
        next: [[748, 170, 37, 22, 22, 0], [202, 520, 222, 40, 13, 0], [39, 222, 444, 235, 45, 13], [6, 73, 228, 436, 187, 67], [0, 6, 61, 204, 551, 176], [0, 0, 20, 61, 178, 739]],
        fades: [189, 5312], residue: 0 },
    Model { name: Cow::Borrowed("umts up"), levels: [35960, 81019, 116870, 149145, 168248, 177966],
        next: [[673, 231, 50, 28, 7, 7], [210, 394, 322, 65, 6, 0], [59, 291, 291, 278, 72, 6], [6, 82, 215, 360, 208, 126], [6, 13, 69, 243, 333, 333], [13, 6, 41, 68, 349, 520]],
        fades: [155, 5185], residue: 0 },
];
