"""Makes test/fixtures/decoders: tiny decoders with random weights, as the real exporters write them, and PyTorch's answers.

    decoders/WEIGHTS/expected.json      what PyTorch computes with these weights
    decoders/WEIGHTS/EXPORT/model.onnx  one export of them, with the files that a user has beside it

Every export is run here with onnxruntime, token by token with its cache, and must give PyTorch's tokens and logits.

optimum-onnx needs transformers 4.57, onnxruntime-genai's model builder transformers 5, so there are two environments:

    pip install torch==2.15.0 transformers==4.57.6 optimum-onnx==0.1.0 onnx==1.23.2 onnxruntime==1.32.0 onnxscript==0.7.2
    pip install torch==2.15.0 transformers==5.24.0 onnxruntime-genai==0.18.0 onnx==1.23.2 onnxruntime==1.32.0

    python make_decoder_fixtures.py --genai-python OTHER_ENVIRONMENT/bin/python [--only WEIGHTS]
    python make_decoder_fixtures.py --genai-python OTHER_ENVIRONMENT/bin/python --llama-32m FOLDER   # for benchmarks
"""

import argparse
import importlib.metadata
import itertools
import json
import logging
import math
import pathlib
import shutil
import subprocess
import tempfile
import warnings

import numpy
import onnx
import onnxruntime
import tokenizers
import torch
import transformers
from onnx import TensorProto, helper, numpy_helper
from optimum.exporters.onnx import main_export
from optimum.exporters.onnx.model_configs import LlamaOnnxConfig
from transformers.integrations.executorch import sdpa_mask_without_vmap
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS

REPOSITORY = pathlib.Path(__file__).resolve().parent.parent.parent
FIXTURES = REPOSITORY / "test" / "fixtures" / "decoders"

VOCABULARY = 320
SPECIAL_TOKENS = ["<pad>", "<s>", "</s>", "<|im_start|>", "<|im_end|>"]
PAD, BOS, EOS, TURN_END = 0, 1, 2, 4
CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
CORPUS = """An engine is compiled once, and runs for as long as the machine does.
The cache keeps what the model has already read, so that every step reads one token more and no token twice.
A sequence is a row of the cache; rows that ended make room for the next ones in the queue.
The user asks, the assistant answers: the first token takes the longest, and the others follow.
Zwei Züge fahren über die Brücke; 3 + 4 = 7, and 12 * 12 = 144. «Où est la gare ?» 東京 🚆
""".splitlines()

PROMPT_LENGTHS = (1, 7, 33, 64, 200)
STEPS = 40
CLEAR_GAP = 0.005  # between the two best logits of a step: far above FP32's noise of some 1e-6
DISTINCT_TOKENS = 12  # of 40: the text doesn't merely repeat itself
TOLERANCE = 1e-4

decoder = {
    "vocab_size": VOCABULARY,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 512,
    "bos_token_id": BOS,
    "eos_token_id": EOS,
    "pad_token_id": PAD,
}

# Weights → configuration, exports. Exports of one set of weights share one expected.json.
WEIGHTS = {
    "llama": (
        transformers.LlamaConfig(**decoder, num_key_value_heads=2),
        ["optimum", "optimum-no-position-ids", "optimum-no-attention-mask", "genai", "dynamo-23", "dynamo-24"]
        + ["tensor-scatter", "static-cache"],
    ),
    "llama3": (
        transformers.LlamaConfig(
            **decoder,
            num_key_value_heads=1,
            tie_word_embeddings=True,
            rope_theta=500_000.0,
            rope_scaling={
                "rope_type": "llama3",
                "factor": 8.0,
                "low_freq_factor": 1.0,
                "high_freq_factor": 4.0,
                "original_max_position_embeddings": 64,
            },
        ),
        ["optimum", "genai"],
    ),
    "qwen2": (
        transformers.Qwen2Config(**decoder, num_key_value_heads=2, tie_word_embeddings=True),
        ["optimum", "genai"],
    ),
    "qwen3": (
        transformers.Qwen3Config(**decoder, num_key_value_heads=2, head_dim=32, tie_word_embeddings=True),
        ["optimum", "genai"],
    ),
    "gpt2": (
        transformers.GPT2Config(
            vocab_size=VOCABULARY, n_embd=64, n_layer=2, n_head=4, n_positions=256, bos_token_id=EOS, eos_token_id=EOS
        ),
        ["optimum"],
    ),
    "mistral": (
        transformers.MistralConfig(**decoder, num_key_value_heads=2, sliding_window=None),
        ["optimum", "genai"],
    ),
    "mistral-window": (transformers.MistralConfig(**decoder, num_key_value_heads=2, sliding_window=16), ["optimum"]),
    "qwen2-window": (
        transformers.Qwen2Config(
            **decoder, num_key_value_heads=2, use_sliding_window=True, sliding_window=16, max_window_layers=1
        ),
        ["optimum", "genai-full-cache"],
    ),
    "phi3": (
        transformers.Phi3Config(**decoder, original_max_position_embeddings=512, sliding_window=None),
        ["optimum", "genai"],
    ),
    "gemma": (transformers.GemmaConfig(**decoder, num_key_value_heads=1, head_dim=32), ["optimum", "genai"]),
    "gemma3": (
        transformers.Gemma3TextConfig(
            **decoder,
            num_key_value_heads=1,
            head_dim=32,
            query_pre_attn_scalar=32,
            sliding_window=16,
            layer_types=["sliding_attention", "full_attention"],
        ),
        ["optimum"],
    ),
}
INT4 = "llama-int4"  # llama's weights, quantized by onnxruntime-genai's builder; PyTorch computes with the same int4 values
WITHOUT_CHAT = {"gpt2"}
# Qwen ends a turn and a text with different tokens.
END_OF_SEQUENCE = {"qwen2": [TURN_END, EOS], "qwen3": [TURN_END, EOS]}


# --- weights, prompts, answers ------------------------------------------------------------------------------------------


def prompts():
    generator = torch.Generator().manual_seed(0)
    low = len(SPECIAL_TOKENS)
    return [torch.randint(low, VOCABULARY, (length,), generator=generator).tolist() for length in PROMPT_LENGTHS]


def randomize(model, seed):
    """Random weights under which the model is sensitive to every token it has read, and to every parameter."""
    generator = torch.Generator().manual_seed(seed)
    kind = model.config.model_type
    gemma = kind.startswith("gemma")
    # A tied head favours the token just read, the more so the larger the embedding is beside what the layers add.
    embedding = {"gpt2": 0.15, "gemma": 0.06, "gemma3_text": 0.02}.get(kind, 0.25)
    # The final norm's gain sets the spread of the logits: about 2.
    final_gain = 2 / (embedding * math.sqrt(model.config.hidden_size)) if model.config.tie_word_embeddings else 1
    for name, parameter in model.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        with torch.no_grad():
            if any(part in name for part in ("embed_tokens", "wte", "wpe")):
                parameter.copy_(noise * embedding)
            elif name.startswith("lm_head"):
                parameter.copy_(noise * 2 / math.sqrt(parameter.shape[1]))
            elif name.endswith("bias"):
                parameter.copy_(noise * 0.2)
            elif parameter.dim() == 1:  # a norm's gain; Gemma's norms multiply by 1 + gain
                gain = final_gain if name in ("model.norm.weight", "transformer.ln_f.weight") else 1
                parameter.copy_(gain * (1 + noise * 0.2) - (1 if gemma else 0))
            else:  # GPT-2's weights are [in, out]
                fan_in = parameter.shape[0] if kind == "gpt2" else parameter.shape[1]
                parameter.copy_(noise * 1.5 / math.sqrt(fan_in))


@torch.inference_mode()
def answer(model, prompt, suppressed, clear_gap=0.0):
    """Greedy tokens, each from the whole sequence read anew. None as soon as a step's gap is below clear_gap."""
    ids, greedy, gaps, logits = list(prompt), [], [], []
    for _ in range(STEPS):
        row = model(input_ids=torch.tensor([ids]), use_cache=False).logits[0, -1]
        logits.append(row)
        allowed = row.clone()
        allowed[suppressed] = -math.inf
        best = allowed.topk(2)
        gap = (best.values[0] - best.values[1]).item()
        if gap < clear_gap:
            return None
        gaps.append(gap)
        greedy.append(best.indices[0].item())
        ids.append(greedy[-1])
    rounded = lambda values: [float(f"{value:.7g}") for value in values]
    return {
        "prompt": list(prompt),
        "greedy": greedy,
        "gaps": rounded(gaps),
        "firstLogits": rounded(logits[0].tolist()),
        "lastLogits": rounded(logits[-1].tolist()),
    }


def expected(model, suppressed, clear_gap=0.0, distinct=0):
    cases = []
    for prompt in prompts():
        case = answer(model, prompt, suppressed, clear_gap)
        if case is None or len(set(case["greedy"])) < distinct:
            return None
        cases.append(case)
    return {
        "madeBy": f"torch {torch.__version__.split('+')[0]}, transformers {transformers.__version__}, CPU, float32, no cache",
        "suppressed": suppressed,
        "cases": cases,
    }


def make_weights(name):
    """The first seed whose text is varied and whose every step is clear: (model, seed, expected)."""
    config = WEIGHTS[name][0]
    model = transformers.AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval()
    suppressed = sorted(END_OF_SEQUENCE.get(name, [EOS]))
    for seed in itertools.count():
        randomize(model, seed)
        answers = expected(model, suppressed, CLEAR_GAP, DISTINCT_TOKENS)
        if answers:
            return model, seed, answers


# --- tokenizer ----------------------------------------------------------------------------------------------------------


def make_tokenizer(corpus, vocabulary, max_length, chat=True):
    core = tokenizers.Tokenizer(tokenizers.models.BPE())
    core.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=SPECIAL_TOKENS,
        initial_alphabet=sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    core.train_from_iterator(corpus, trainer)
    assert core.get_vocab_size() == vocabulary, core.get_vocab_size()
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=core,
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        model_max_length=max_length,
        clean_up_tokenization_spaces=False,
    )
    if chat:
        tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


# --- exports ------------------------------------------------------------------------------------------------------------


class WithoutPositionIds(LlamaOnnxConfig):
    @property
    def inputs(self):
        return {name: axes for name, axes in super().inputs.items() if name != "position_ids"}


class WithoutAttentionMask(LlamaOnnxConfig):
    @property
    def inputs(self):
        return {name: axes for name, axes in super().inputs.items() if name != "attention_mask"}


def optimum(checkpoint, folder, config_class=None):
    options = {}
    if config_class:
        config = transformers.AutoConfig.from_pretrained(checkpoint)
        options["custom_onnx_configs"] = {
            "model": config_class(config, task="text-generation", use_past=True, use_past_in_inputs=True)
        }
    main_export(str(checkpoint), folder, task="text-generation-with-past", do_validation=False, **options)


def genai(checkpoint, folder, python, precision="fp32", *options):
    command = [
        python,
        "-m",
        "onnxruntime_genai.models.builder",
        "-i",
        checkpoint,
        "-o",
        folder,
        "-p",
        precision,
        "-e",
        "cpu",
    ]
    with tempfile.TemporaryDirectory() as cache:
        command += ["-c", cache]
        if options:
            command += ["--extra_options", *options]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


class FlatCache(torch.nn.Module):
    """A decoder with its cache as single tensors, the way torch.onnx wants to name them."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, input_ids, attention_mask, position_ids, *past):
        cache = transformers.DynamicCache()
        for layer, (key, value) in enumerate(zip(past[::2], past[1::2])):
            cache.update(key, value, layer)
        result = self.model(
            input_ids=input_ids,
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=cache,
            use_cache=True,
        )
        presents = [tensor for layer in result.past_key_values.layers for tensor in (layer.keys, layer.values)]
        return result.logits, *presents


def cache_names(prefix, layers):
    return [f"{prefix}.{layer}.{kind}" for layer in range(layers) for kind in ("key", "value")]


def dynamo(checkpoint, folder, opset, bare):
    """torch.onnx.export(dynamo=True); bare: input_ids and the cache are the only inputs."""
    # torch.export can't trace the vmap of transformers' own mask function.
    ALL_MASK_ATTENTION_FUNCTIONS.register("sdpa", sdpa_mask_without_vmap)
    model = transformers.AutoModelForCausalLM.from_pretrained(checkpoint, attn_implementation="sdpa").eval()
    config = model.config
    batch, sequence, past = map(torch.export.Dim, ("batch_size", "sequence_length", "past_sequence_length"))
    cache = [
        torch.zeros(2, config.num_key_value_heads, 5, config.head_dim) for _ in range(2 * config.num_hidden_layers)
    ]
    masked = (None, None) if bare else (torch.ones(2, 8, dtype=torch.int64), torch.arange(5, 8).repeat(2, 1))
    masked_axes = (None, None) if bare else ({0: batch, 1: torch.export.Dim.DYNAMIC}, {0: batch, 1: sequence})
    folder.mkdir(parents=True)
    torch.onnx.export(
        FlatCache(model),
        (torch.ones(2, 3, dtype=torch.int64), *masked, *cache),
        folder / "model.onnx",
        dynamo=True,
        opset_version=opset,
        input_names=["input_ids"]
        + ([] if bare else ["attention_mask", "position_ids"])
        + cache_names("past_key_values", config.num_hidden_layers),
        output_names=["logits"] + cache_names("present", config.num_hidden_layers),
        dynamic_shapes=({0: batch, 1: sequence}, *masked_axes, tuple({0: batch, 2: past} for _ in cache)),
        verbose=False,
    )
    # The exporter notes each operator's Python stack, with the paths of the machine that it ran on.
    proto = onnx.load(folder / "model.onnx", load_external_data=False)
    for node in proto.graph.node:
        kept = [entry for entry in node.metadata_props if entry.key != "pkg.torch.onnx.stack_trace"]
        del node.metadata_props[:]
        node.metadata_props.extend(kept)
    onnx.save(proto, folder / "model.onnx")
    copy_configuration(checkpoint, folder)


def scatter(checkpoint, folder, flat):
    """A Llama over a cache of fixed capacity, written by hand with opset 24's TensorScatter and Attention.

    flat=False: caches [batch, kvHeads, capacity, headDim] with a dynamic capacity, named as optimum names them; positions
    and lengths follow from write_indices.
    flat=True: the inputs and outputs of mobius' --static-cache (microsoft's exporter, not on PyPI): caches
    [batch, capacity, kvHeads * headDim] with a fixed capacity; position_ids and nonpad_kv_seqlen are inputs.
    """
    model = transformers.LlamaForCausalLM.from_pretrained(checkpoint)
    config = model.config
    heads, kv_heads, head_dim = config.num_attention_heads, config.num_key_value_heads, config.head_dim
    nodes, initializers, inputs, outputs = [], [], [], []
    count = itertools.count()

    def op(kind, operands, output=None, **attributes):
        output = output or f"{kind}_{next(count)}"
        nodes.append(helper.make_node(kind, operands, [output], **attributes))
        return output

    def constant(name, array):
        initializers.append(numpy_helper.from_array(numpy.ascontiguousarray(array), name))
        return name

    weights = {name: tensor.detach().numpy() for name, tensor in model.named_parameters()}
    matmul = lambda x, name: op("MatMul", [x, constant(name, weights[name].T)])
    norm = lambda x, name: op("RMSNormalization", [x, constant(name, weights[name])], epsilon=config.rms_norm_eps)

    tensor = lambda name, kind, dims: helper.make_tensor_value_info(name, kind, dims)
    inputs.append(tensor("input_ids", TensorProto.INT64, ["batch", "sequence"]))
    if flat:
        inputs.append(tensor("position_ids", TensorProto.INT64, ["batch", "sequence"]))
    inputs.append(tensor("write_indices", TensorProto.INT64, ["batch"]))
    if flat:
        inputs.append(tensor("nonpad_kv_seqlen", TensorProto.INT64, ["batch"]))
        positions, lengths = "position_ids", "nonpad_kv_seqlen"
    else:
        length = op("Shape", ["input_ids"], start=1, end=2)
        lengths = op("Add", ["write_indices", length])
        zero, one = constant("zero", numpy.int64(0)), constant("one", numpy.int64(1))
        steps = op("Range", [zero, op("Squeeze", [length]), one])
        positions = op("Add", [op("Unsqueeze", ["write_indices", constant("last", numpy.array([-1]))]), steps])

    angles = torch.outer(torch.arange(config.max_position_embeddings).float(), model.model.rotary_emb.inv_freq)
    tables = [constant("cos", angles.cos().numpy()), constant("sin", angles.sin().numpy())]
    rotate = lambda x, number: op("RotaryEmbedding", [x, *tables, positions], **({"num_heads": number} if flat else {}))
    split_shapes = {
        number: constant(f"split.{number}", numpy.array([0, 0, number, head_dim])) for number in (heads, kv_heads)
    }
    merged_shape = constant("merged", numpy.array([0, 0, heads * head_dim]))

    def split(x, number):
        return x if flat else op("Transpose", [op("Reshape", [x, split_shapes[number]])], perm=[0, 2, 1, 3])

    x = op("Gather", [constant("model.embed_tokens.weight", weights["model.embed_tokens.weight"]), "input_ids"])
    for layer in range(config.num_hidden_layers):
        name = lambda part: f"model.layers.{layer}.{part}.weight"
        attended = norm(x, name("input_layernorm"))
        query = rotate(split(matmul(attended, name("self_attn.q_proj")), heads), heads)
        caches = []
        for kind in ("key", "value"):
            update = split(matmul(attended, name(f"self_attn.{kind[0]}_proj")), kv_heads)
            if kind == "key":
                update = rotate(update, kv_heads)
            past, present = (
                (f"{kind}_cache.{layer}", f"updated_{kind}_cache.{layer}")
                if flat
                else (f"past_key_values.{layer}.{kind}", f"present.{layer}.{kind}")
            )
            dims = (
                ["batch", config.max_position_embeddings, kv_heads * head_dim]
                if flat
                else ["batch", kv_heads, "capacity", head_dim]
            )
            inputs.append(tensor(past, TensorProto.FLOAT, dims))
            outputs.append(tensor(present, TensorProto.FLOAT, dims))
            caches.append(op("TensorScatter", [past, update, "write_indices"], present, axis=1 if flat else 2))
        numbers = {"q_num_heads": heads, "kv_num_heads": kv_heads} if flat else {}
        context = op("Attention", [query, *caches, "", "", "", lengths], is_causal=1, **numbers)
        if not flat:
            context = op("Reshape", [op("Transpose", [context], perm=[0, 2, 1, 3]), merged_shape])
        residual = op("Add", [x, matmul(context, name("self_attn.o_proj"))])
        fed = norm(residual, name("post_attention_layernorm"))
        gate = matmul(fed, name("mlp.gate_proj"))
        activated = op("Mul", [op("Mul", [gate, op("Sigmoid", [gate])]), matmul(fed, name("mlp.up_proj"))])
        x = op("Add", [residual, matmul(activated, name("mlp.down_proj"))])
    op("MatMul", [norm(x, "model.norm.weight"), constant("lm_head.weight", weights["lm_head.weight"].T)], "logits")
    outputs.insert(0, tensor("logits", TensorProto.FLOAT, ["batch", "sequence", config.vocab_size]))

    used = {operand for node in nodes for operand in node.input}
    graph = helper.make_graph(nodes, "llama", inputs, outputs, [value for value in initializers if value.name in used])
    proto = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 24)], ir_version=10, producer_name="node-tensorrt"
    )
    onnx.checker.check_model(proto, full_check=True)
    folder.mkdir(parents=True)
    onnx.save(proto, folder / "model.onnx")
    copy_configuration(checkpoint, folder)


def copy_configuration(checkpoint, folder):
    for file in checkpoint.iterdir():
        if file.suffix in (".json", ".jinja"):
            shutil.copy(file, folder)


def export(kind, checkpoint, folder, genai_python):
    match kind:
        case "optimum":
            optimum(checkpoint, folder)
        case "optimum-no-position-ids":
            optimum(checkpoint, folder, WithoutPositionIds)
        case "optimum-no-attention-mask":
            optimum(checkpoint, folder, WithoutAttentionMask)
        case "genai":
            genai(checkpoint, folder, genai_python)
        case "genai-full-cache":
            genai(checkpoint, folder, genai_python, "fp32", "windowed_kv_cache=false")
        case "dynamo-23":
            dynamo(checkpoint, folder, 23, bare=False)
        case "dynamo-24":
            dynamo(checkpoint, folder, 24, bare=True)
        case "tensor-scatter":
            scatter(checkpoint, folder, flat=False)
        case "static-cache":
            scatter(checkpoint, folder, flat=True)


# --- int4 ---------------------------------------------------------------------------------------------------------------


@torch.inference_mode()
def dequantize(model, model_file):
    """Gives a PyTorch Llama the weights that the MatMulNBits operators of its int4 export stand for."""
    proto = onnx.load(model_file)
    tensors = {value.name: numpy_helper.to_array(value) for value in proto.graph.initializer}
    linear = {name: module for name, module in model.named_modules() if isinstance(module, torch.nn.Linear)}
    config = model.config
    for node in proto.graph.node:
        if node.op_type != "MatMulNBits":
            continue
        attributes = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
        assert attributes["bits"] == 4 and len(node.input) == 3, node.name  # no zero points: 8 stands for 0
        packed, scales = (tensors[name].reshape(attributes["N"], -1) for name in node.input[1:])
        levels = numpy.stack([packed & 15, packed >> 4], axis=-1).reshape(attributes["N"], -1).astype(numpy.float32) - 8
        weight = (levels * scales.repeat(attributes["block_size"], axis=1))[:, : attributes["K"]]
        # "/model/layers.0/attn/qkv_proj/MatMul_Q4" → "model.layers.0.self_attn.qkv_proj"
        name = node.name.strip("/").rpartition("/MatMul")[0].replace("/", ".").replace("attn", "self_attn")
        if name.endswith("qkv_proj"):
            q, kv = config.num_attention_heads * config.head_dim, config.num_key_value_heads * config.head_dim
            parts = {name.replace("qkv", part): w for part, w in zip("qkv", numpy.split(weight, [q, q + kv]))}
        else:
            parts = {name: weight}
        for name, weight in parts.items():
            linear.pop(name).weight.copy_(torch.from_numpy(weight))
    assert not linear, list(linear)


# --- checking -----------------------------------------------------------------------------------------------------------


def empty_cache(folder, value, capacity):
    """What a cache holds before the first token: nothing, or zeros up to its capacity."""
    dims = list(value.shape)
    dims[0] = 1
    length_axis = 1 if len(dims) == 3 else 2
    if isinstance(dims[length_axis], str):
        dims[length_axis] = capacity
    if isinstance(
        dims[-1], str
    ):  # onnxruntime-genai's exports don't say how large a head is, but their configuration does
        dims[-1] = json.loads((folder / "genai_config.json").read_text())["model"]["decoder"]["head_size"]
    return numpy.zeros(dims, numpy.float32)


def check(folder, answers):
    """Runs an export with its cache, as a user would; returns how far its logits are from PyTorch's at most."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(folder / "model.onnx", options, providers=["CPUExecutionProvider"])
    inputs = {value.name: value for value in session.get_inputs()}
    outputs = [value.name for value in session.get_outputs()]
    presents = {name: name.replace("past_key_values", "present") for name in inputs if name.startswith("past_")}
    presents |= {name: f"updated_{name}" for name in inputs if "_cache." in name}
    capacity = max(PROMPT_LENGTHS) + STEPS if "write_indices" in inputs else 0
    worst = 0.0
    for case in answers["cases"]:
        caches = {name: empty_cache(folder, inputs[name], capacity) for name in presents}
        ids, past = case["prompt"], 0
        for step, (token, gap) in enumerate(zip(case["greedy"], case["gaps"])):
            total = past + len(ids)
            values = {
                "input_ids": [ids],
                "attention_mask": [[1] * total],
                "position_ids": [list(range(past, total))],
                "write_indices": [past],
                "nonpad_kv_seqlen": [total],
            }
            feeds = {name: numpy.array(value, numpy.int64) for name, value in values.items() if name in inputs}
            results = dict(zip(outputs, session.run(None, feeds | caches)))
            row = results["logits"][0, -1]
            for logits in ["firstLogits"] * (step == 0) + ["lastLogits"] * (step == STEPS - 1):
                worst = max(worst, float(numpy.abs(row - numpy.array(case[logits])).max()))
            row[answers["suppressed"]] = -numpy.inf
            assert row.argmax() == token or gap <= TOLERANCE, f"{folder}, prompt of {len(case['prompt'])}, step {step}"
            caches = {name: results[present] for name, present in presents.items()}
            ids, past = [token], total
    assert worst <= TOLERANCE, f"{folder}: logits differ by {worst}"
    return worst


# --- all of it ----------------------------------------------------------------------------------------------------------


def write_json(file, value):
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(value, separators=(",", ":")) + "\n")


def write_checkpoint(name, model, folder):
    """What exporters read: the weights with their configuration, and a tokenizer."""
    model.generation_config.eos_token_id = END_OF_SEQUENCE.get(name, EOS)
    model.save_pretrained(folder)
    length = model.config.max_position_embeddings
    make_tokenizer(CORPUS, VOCABULARY, length, chat=name not in WITHOUT_CHAT).save_pretrained(folder)


def make(name, genai_python):
    shutil.rmtree(FIXTURES / name, ignore_errors=True)
    model, seed, answers = make_weights(name)
    write_json(FIXTURES / name / "expected.json", {"seed": seed, **answers})
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = pathlib.Path(folder)
        write_checkpoint(name, model, checkpoint)
        for kind in WEIGHTS[name][1]:
            export(kind, checkpoint, FIXTURES / name / kind, genai_python)
            print(f"{name}/{kind}: {check(FIXTURES / name / kind, answers):.1e}", flush=True)


def make_int4(genai_python):
    folder = FIXTURES / INT4 / "genai"
    shutil.rmtree(FIXTURES / INT4, ignore_errors=True)
    model, seed, _ = make_weights("llama")
    with tempfile.TemporaryDirectory() as checkpoint:
        write_checkpoint(INT4, model, checkpoint)
        # Level 1: activations stay in FP32 (the builder's own default on the CPU, 4, rounds them to int8).
        genai(checkpoint, folder, genai_python, "int4", "accuracy_level=1")
    dequantize(model, folder / "model.onnx")
    answers = expected(model, [EOS])
    write_json(FIXTURES / INT4 / "expected.json", {"seed": seed, **answers})
    print(f"{INT4}/genai: {check(folder, answers):.1e}", flush=True)


def make_llama_32m(folder, genai_python):
    """The Llama of the benchmarks: 31.99 million parameters, 8 layers, 8 heads over 4 key/value heads, FP32.

    FOLDER/optimum and FOLDER/genai; the tokenizer is trained on this repository's own text. No answers: timings only.
    """
    config = transformers.LlamaConfig(
        vocab_size=8192,
        hidden_size=512,
        intermediate_size=1408,
        num_hidden_layers=8,
        num_attention_heads=8,
        num_key_value_heads=4,
        max_position_embeddings=32_768,
        bos_token_id=BOS,
        eos_token_id=EOS,
        pad_token_id=PAD,
    )
    model = transformers.LlamaForCausalLM(config).eval()
    randomize(model, 0)
    print(f"{sum(parameter.numel() for parameter in model.parameters()) / 1e6:.2f} million parameters")
    sources = [
        file for part in ("lib", "native", "test/oracle", "scripts") for file in (REPOSITORY / part).rglob("*.*")
    ]
    corpus = [file.read_text() for file in sorted(sources) if file.suffix in (".ts", ".mjs", ".cc", ".h", ".py")]
    with tempfile.TemporaryDirectory() as checkpoint:
        model.save_pretrained(checkpoint)
        make_tokenizer(corpus, config.vocab_size, config.max_position_embeddings).save_pretrained(checkpoint)
        optimum(checkpoint, folder / "optimum")
        genai(checkpoint, folder / "genai", genai_python)


README = """# Tiny decoders, as exporters write them, with PyTorch's answers

`WEIGHTS/EXPORT/model.onnx` with the files that a user has beside it; `WEIGHTS/expected.json` holds what PyTorch computes
with these weights. Written by `test/oracle/make_decoder_fixtures.py` with {versions};
`genai` with {genai_versions}.
Licence: the weights are random numbers and the tokenizer was trained on a few lines in that script, so all of it is this
project's own (Apache-2.0); only the shape of the graphs is the exporters'.

`expected.json`: for prompts of {prompts} random tokens (the same for all), {steps} greedy tokens, PyTorch FP32, the sequence
read anew for each token (no cache), tokens in `suppressed` (end of sequence) never chosen; `gaps[i]`: by how much the best
logit of step i leads the second; `firstLogits` and `lastLogits` are the logits that the first and the last token were chosen
by, rounded to 7 digits. Seeds are chosen such that every gap is at least {gap} (not so for `{int4}`: its weights are llama's
after quantization) and at least {distinct} of the {steps} tokens of each answer differ. A logit's standard deviation is about 2.

Every export was run with onnxruntime on the CPU over its own cache: tokens equal, and logits as close as the table says.

| export | kB | opset | nodes | inputs besides `input_ids` and the cache | largest difference |
| --- | --- | --- | --- | --- | --- |
{table}

- `optimum`: optimum-onnx, `text-generation-with-past`. `optimum-no-…`: the same with that input taken out of its
  configuration. It gives GPT-2, Llama, Mistral, Phi-3 and Qwen a `position_ids` input, Gemma none.
- `genai`: onnxruntime-genai's model builder, FP32 for the CPU. It knows no GPT-2; Gemma 3 fails in it with transformers 5.24
  (`KeyError: 'rope_type'`); of a Mistral with a sliding window it loses the window (onnxruntime-genai 0.18 looks for layer
  types, which Mistral's configuration lacks), so that export is left out. `genai-full-cache`: with `windowed_kv_cache=false`,
  else layers with a window want a buffer of at least the window's length from the first step on. `{int4}`: its int4 (`MatMulNBits`, symmetric, blocks of
  32), accuracy level 1; the embedding stays FP32.
- `dynamo-23`, `dynamo-24`: `torch.onnx.export(dynamo=True)` at that opset; the latter has no inputs but `input_ids` and the
  cache. Each operator's Python stack was taken out of its metadata: it names files of the machine.
- `tensor-scatter`, `static-cache`: written with `onnx.helper`, opset 24, `TensorScatter` and `Attention` with
  `nonpad_kv_seqlen` and `is_causal`, whose diagonal ends at the last key that is valid (onnx 1.23's reading, onnxruntime 1.30's
  too). `static-cache` has the inputs and outputs of Microsoft's exporter mobius (`--static-cache`): caches
  `[batch, capacity, kvHeads * headDim]`; the other one has `[batch, kvHeads, capacity, headDim]`.
- `llama`: grouped queries. `llama3`: one key/value head, tied embeddings, llama3's scaled rotary frequencies. `phi3`, `gpt2`:
  every head its own key/value head. `mistral-window`, `qwen2-window`, `gemma3`: a sliding window of 16 in both layers, the
  second, the first.

## What they do with the length of the past

- `optimum` reads it from `Shape(past_key_values.0.key)[2]`, whatever the model. From it come the positions of the new tokens
  (`Range(past, past + new)`), hence the mask: `key <= position`, with a window also `key > position - 16`, and the
  `attention_mask` gathered at the same keys; one bool mask `[batch, 1, new, total]` for all layers of a kind. Without
  `position_ids`, the rotary embedding takes its positions from that range too.
- `dynamo`: the same, but the length is read from `past_key_values.1.key`, the batch from any past's shape.
- `genai`: never. `seqlens_k = ReduceSum(attention_mask) - 1`, `total_sequence_length = Shape(attention_mask)[1]`.
- `tensor-scatter`: from `write_indices`; `static-cache`: from `position_ids` and `nonpad_kv_seqlen`.
"""


def write_readme(differences, genai_python):
    packages = ["torch", "transformers", "optimum-onnx", "onnx", "onnxruntime", "onnxscript", "tokenizers"]
    genai_packages = ["onnxruntime-genai", "transformers", "torch", "onnx-ir"]
    query = "import importlib.metadata as m, sys; print(*(f'{n} {m.version(n)}' for n in sys.argv[1:]), sep=', ')"
    genai_versions = subprocess.run(
        [genai_python, "-c", query, *genai_packages], check=True, capture_output=True, text=True
    ).stdout.strip()
    rows = []
    for file in sorted(FIXTURES.glob("*/*/model.onnx")):
        proto = onnx.load(file, load_external_data=False)
        fixture = file.parent.relative_to(FIXTURES).as_posix()
        size = sum(part.stat().st_size for part in file.parent.glob("model.onnx*"))
        names = [value.name for value in proto.graph.input]
        extra = ", ".join(
            f"`{name}`" for name in names if name != "input_ids" and "key" not in name and "value" not in name
        )
        rows.append(
            f"| `{fixture}` | {round(size / 1000)} | {proto.opset_import[0].version} | {len(proto.graph.node)} | "
            f"{extra or '–'} | {differences[fixture]:.1e} |"
        )
    text = README.format(
        versions=", ".join(f"{name} {importlib.metadata.version(name)}" for name in packages),
        genai_versions=genai_versions,
        prompts=", ".join(map(str, PROMPT_LENGTHS)),
        steps=STEPS,
        gap=CLEAR_GAP,
        distinct=DISTINCT_TOKENS,
        int4=INT4,
        table="\n".join(rows),
    )
    (FIXTURES / "README.md").write_text(text)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--genai-python", required=True)
    parser.add_argument("--only", nargs="*", choices=[*WEIGHTS, INT4], default=[*WEIGHTS, INT4])
    parser.add_argument("--llama-32m", type=pathlib.Path, metavar="FOLDER")
    options = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    transformers.logging.set_verbosity_error()
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    if options.llama_32m:
        make_llama_32m(options.llama_32m, options.genai_python)
        return
    for name in options.only:
        make_int4(options.genai_python) if name == INT4 else make(name, options.genai_python)
    answers = {file.parent.name: json.loads(file.read_text()) for file in FIXTURES.glob("*/expected.json")}
    write_readme(
        {
            f"{name}/{folder.name}": check(folder, expected)
            for name, expected in answers.items()
            for folder in (FIXTURES / name).iterdir()
            if folder.is_dir()
        },
        options.genai_python,
    )


if __name__ == "__main__":
    main()
