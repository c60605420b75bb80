"""Writes test/fixtures/text/utf8.txt: bytes, and what Python's bytes.decode('utf-8', 'replace') makes of them, in hex.

    python3 test/oracle/make_text_goldens.py > test/fixtures/text/utf8.txt
"""

import random

random.seed(5)
# The edges of each row of Unicode's table of well-formed sequences, and what is near them.
FIRST = [0x00, 0x41, 0x7F, 0x80, 0xBF, 0xC0, 0xC1, 0xC2, 0xDF, 0xE0, 0xE1, 0xEC, 0xED, 0xEE, 0xEF, 0xF0, 0xF1, 0xF3, 0xF4, 0xF5, 0xFF]
NEXT = [0x41, 0x7F, 0x80, 0x8F, 0x90, 0x9F, 0xA0, 0xBF, 0xC2, 0xE0, 0xF0]
for _ in range(600):
    parts = []
    for _ in range(random.randint(0, 6)):
        if random.random() < 0.4:
            parts.append(random.choice("aé€𝄞🦊ก́한￿ \u200d").encode())
        else:
            parts.append(bytes([random.choice(FIRST)] + random.choices(NEXT, k=random.randint(0, 3))))
    text = b"".join(parts)
    print(text.hex() or "-", text.decode("utf-8", "replace").encode().hex() or "-")
