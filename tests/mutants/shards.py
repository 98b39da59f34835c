"""Wrong changes to `shards`."""

from __future__ import annotations

from tests.mutants.mutant import Mutant

SHARDS, MEDIA = "tests/shards/test_shards.py", "tests/shards/test_media.py"
COLUMNS = "tests/shards/test_columns.py"

MUTANTS = (
    Mutant(
        "keeps what was said of a score that is replaced",
        "shards/scores.py",
        "if len(kept) < len(header.scores):",
        "if len(kept) > len(header.scores):",
        ("tests/shards/test_scores.py::test_a_replacement_that_stops_half_way_leaves_no_score",),
        "a crash leaves a new column under an old description",
    ),
    Mutant(
        "names shards before they are written",
        "shards/writer.py",
        "rows: list[ManifestRow] = []",
        "rows: list[ManifestRow] = write_manifest(out_dir, []) or []",
        (f"{SHARDS}::test_broken_off_anywhere_a_folder_names_nothing_that_is_not_whole",),
        "a shard that the manifest names is complete; so is the set",
    ),
    Mutant(
        "writes samples as they come",
        "shards/writer.py",
        "key=lambda item: (item[0].split, item[0].key))",
        "key=lambda item: item[0].split)",
        (f"{SHARDS}::test_same_samples_give_the_same_bytes_in_any_order",),
        "equal samples are to give equal bytes",
    ),
    Mutant(
        "lets a shard grow by one",
        "shards/writer.py",
        "len(batch) >= max_samples",
        "len(batch) > max_samples",
        (f"{SHARDS}::test_shards_are_cut_by_samples_and_by_bytes",),
        "a shard has at most max_samples samples",
    ),
    Mutant(
        "loses the last batch of a split",
        "shards/writer.py",
        "    if batch:\n        yield batch",
        "    if len(batch) > 1:\n        yield batch",
        (f"{SHARDS}::test_shards_are_cut_by_samples_and_by_bytes",),
        "samples vanish without a word",
    ),
    Mutant(
        "counts tokens of half the size",
        "shards/index.py",
        "spatial: int = 16",
        "spatial: int = 8",
        (f"{SHARDS}::test_tokens_of_the_paper_s_codec",),
        "a token covers 16x16 pixels: the codec's 8 times patches of 2",
    ),
    Mutant(
        "forgets that the first frame stands alone",
        "shards/index.py",
        "return (1 + -(-(frames - 1) // self.temporal))",
        "return -(-frames // self.temporal)",
        (f"{SHARDS}::test_tokens_of_the_paper_s_codec",),
        "one latent is the first frame's, then one for every four",
    ),
    Mutant(
        "points before a member's data",
        "shards/writer.py",
        "padded = -(-len(data) // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE",
        "padded = len(data)",
        (f"{SHARDS}::test_stream_and_index_give_the_same_samples",),
        "random access reads other bytes than the stream",
    ),
    Mutant(
        "trusts a shard's checksum",
        "shards/verify.py",
        "if tar.sha256 != row.sha256:",
        "if not row.sha256:",
        (f"{SHARDS}::test_a_byte_that_belongs_to_no_sample_is_noticed",),
        "a shard that is not the manifest's passes",
    ),
    Mutant(
        "rounds frame rates",
        "shards/video_writer.py",
        "rate = Fraction(fps).limit_denominator(1001)",
        "rate = Fraction(round(fps))",
        (f"{MEDIA}::test_video_goes_round_byte_for_byte_the_same",),
        "30000/1001 is not 30: sound, masks and spans drift apart",
    ),
    Mutant(
        "reads held-out samples too",
        "shards/reader.py",
        'if split is None or row.shard.rpartition("-")[0] == split]',
        "]",
        (f"{SHARDS}::test_stream_and_index_give_the_same_samples",),
        "what is held out is trained on",
    ),
    Mutant(
        "believes damaged columns",
        "shards/columns.py",
        "        if found != expected:\n",
        "        if not expected:\n",
        (f"{COLUMNS}::test_damage_that_is_met_later_says_what_to_do",),
        "a plan is made from other lengths than those of the samples",
    ),
    Mutant(
        "takes columns of any version",
        "shards/columns.py",
        'if header["version"] != VERSION:',
        'if not header["version"]:',
        (f"{COLUMNS}::test_what_is_not_whole_is_made_again",),
        "columns of another layout are read as if they were of this one",
    ),
    Mutant(
        "reads a sample up to its last member's header",
        "shards/column_writer.py",
        "block = max(block, -(-(offset + size) // BLOCK))",
        "block = max(block, offset // BLOCK)",
        (f"{COLUMNS}::test_columns_say_what_the_indexes_say",),
        "the last member is cut off",
    ),
    Mutant(
        "never compares a sample's JSON with the index",
        "shards/reader.py",
        "if expected and checksum(document) != expected:",
        "if not expected and checksum(document):",
        ("tests/shards/test_flips.py::test_every_flipped_bit_is_caught_or_harmless",),
        "a flipped bit in a sample's scores or provenance is not noticed",
    ),
)
