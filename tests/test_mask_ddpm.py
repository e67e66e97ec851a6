import numpy as np

from cascade.pipelines.mask_ddpm import clean_mask


def test_masks_are_made_clean():
    mask = np.zeros((20, 20), bool)
    mask[4:12, 4:12] = True
    mask[7, 7] = False
    mask[15:17, 15:17] = True
    clean = clean_mask(mask)
    assert clean.sum() == 64
    assert not clean_mask(np.roll(mask, -4, 0)).any()  # touches the border
    assert not clean_mask(mask, min_area_px=65).any()
    assert not clean_mask(mask & False).any()
