"""Images: `scenes` drawn by code, anybody's folder imported once, catalogue sets; all become batches in `pipeline`.

`scenes` (landscapes with label maps, painted on `canvas`) is made a dataset by `builders` and `drawers`; `folders` imports images and
reports what it rejects; `catalogue` reads prepared TFDS sets; `framing` names crops and resize filters; `show` makes contact sheets.
"""
