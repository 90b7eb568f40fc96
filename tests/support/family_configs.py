"""Tiny configurations of the model families that ComfyUI knows, as its model detection makes them.

Keys of newer ComfyUI that an older one does not know are dropped by `families.build`.
"""

WIDTH = 16  # of every text embedding

# fmt: off
UNET = {
    "image_size": 32, "in_channels": 4, "out_channels": 4, "model_channels": 32,
    "num_res_blocks": [1, 1], "channel_mult": [1, 2], "num_heads": 2,
    "use_spatial_transformer": True, "context_dim": WIDTH, "transformer_depth": [1, 1],
    "transformer_depth_output": [1, 1, 1, 1], "transformer_depth_middle": 1, "legacy": False,
    "adm_in_channels": None, "num_head_channels": -1,
}
SDXL = {
    **UNET, "num_classes": "sequential", "adm_in_channels": 8 + 6 * 256,
    "use_linear_in_transformer": True,
}
STREAMS = {
    "hidden_size": 32, "num_heads": 2, "mlp_ratio": 2.0, "depth": 1, "depth_single_blocks": 1,
    "context_in_dim": WIDTH, "axes_dim": [4, 6, 6], "theta": 10000, "qkv_bias": True,
}
FLUX = {
    **STREAMS, "image_model": "flux", "in_channels": 16, "out_channels": 16, "patch_size": 2,
    "vec_in_dim": 8, "guidance_embed": True, "txt_ids_dims": [],
}
FLUX2 = {
    **FLUX, "image_model": "flux2", "axes_dim": [4, 4, 4, 4], "in_channels": 128,
    "out_channels": 128, "patch_size": 1, "vec_in_dim": None, "global_modulation": True,
    "mlp_silu_act": True, "qkv_bias": False, "ops_bias": False, "default_ref_method": "index",
    "txt_ids_dims": [3],
}
CHROMA = {
    **STREAMS, "image_model": "chroma", "in_channels": 64, "out_channels": 64, "patch_size": 2,
    "in_dim": 64, "out_dim": 32, "hidden_dim": 32, "n_layers": 1, "txt_ids_dims": [],
    "vec_in_dim": None,
}
RADIANCE = {
    **CHROMA, "image_model": "chroma_radiance", "in_channels": 3, "out_channels": 3,
    "patch_size": 16, "nerf_hidden_size": 8, "nerf_mlp_ratio": 2, "nerf_depth": 1,
    "nerf_max_freqs": 2, "nerf_tile_size": 512, "nerf_final_head_type": "conv",
    "nerf_embedder_dtype": None, "use_x0": False, "use_sequential_txt_ids": False,
}
HUNYUAN_VIDEO = {
    **STREAMS, "image_model": "hunyuan_video", "in_channels": 16, "out_channels": 16,
    "patch_size": [1, 2, 2], "vec_in_dim": 8, "guidance_embed": True, "byt5": False,
    "meanflow": False, "use_cond_type_embedding": False, "vision_in_dim": None,
    "meanflow_sum": False,
}
HUNYUAN_IMAGE = {
    **HUNYUAN_VIDEO, "patch_size": [2, 2], "axes_dim": [8, 8], "vec_in_dim": None,
    "in_channels": 64, "out_channels": 64,
}
HUNYUAN_DIT = {
    "image_model": "hydit", "hidden_size": 32, "depth": 4, "num_heads": 2, "mlp_ratio": 2.0,
    "text_states_dim": WIDTH, "text_states_dim_t5": 24, "text_len": 7, "text_len_t5": 5,
}
SD3 = {
    "in_channels": 16, "out_channels": 16, "patch_size": 2, "depth": 2, "input_size": None,
    "adm_in_channels": 8, "num_patches": 64, "pos_embed_max_size": 8,
    "pos_embed_scaling_factor": None, "qk_norm": "rms", "context_processor_layers": 1,
    "context_size": WIDTH, "x_block_self_attn_layers": [0],
    "context_embedder_config": {
        "target": "torch.nn.Linear", "params": {"in_features": WIDTH, "out_features": 128},
    },
}
LTXV = {
    "image_model": "ltxv", "in_channels": 128, "num_layers": 2, "attention_head_dim": 16,
    "num_attention_heads": 2, "cross_attention_dim": 32, "caption_channels": WIDTH,
}
WAN = {
    "image_model": "wan2.1", "model_type": "t2v", "dim": 32, "ffn_dim": 64, "num_heads": 2,
    "num_layers": 2, "text_dim": WIDTH, "text_len": 7, "freq_dim": 32,
}
QWEN = {
    "image_model": "qwen_image", "in_channels": 64, "num_layers": 2, "attention_head_dim": 16,
    "num_attention_heads": 2, "joint_attention_dim": WIDTH, "axes_dims_rope": (4, 6, 6),
}
LUMINA = {
    "image_model": "lumina2", "patch_size": 2, "in_channels": 16, "dim": 48, "cap_feat_dim": WIDTH,
    "n_layers": 2, "n_refiner_layers": 1, "n_heads": 2, "n_kv_heads": 1, "multiple_of": 16,
    "qk_norm": True, "axes_dims": [8, 8, 8], "axes_lens": [64, 64, 64], "ffn_dim_multiplier": 1.0,
}
Z_IMAGE = {
    **LUMINA, "dim": 256, "n_layers": 1, "n_kv_heads": 2, "axes_dims": [32, 48, 48],
    "rope_theta": 256.0, "z_image_modulation": True, "time_scale": 1000.0,
    "pad_tokens_multiple": 32,
}
PIXART = {
    "image_model": "pixart_alpha", "input_size": 8, "hidden_size": 48, "depth": 2, "num_heads": 2,
    "caption_channels": WIDTH, "model_max_length": 7,
}
AURA = {
    "cond_seq_dim": WIDTH, "dim": 32, "n_layers": 2, "n_double_layers": 1, "n_heads": 2,
    "global_conddim": 32, "max_seq": 64,
}
COSMOS = {
    "image_model": "cosmos", "max_img_h": 16, "max_img_w": 16, "max_frames": 16, "in_channels": 16,
    "out_channels": 16, "patch_spatial": 2, "patch_temporal": 1, "model_channels": 32,
    "num_blocks": 2, "num_heads": 2, "crossattn_emb_channels": WIDTH, "pos_emb_cls": "rope3d",
    "pos_emb_learnable": False, "block_x_format": "THWBD", "affline_emb_norm": True,
    "use_adaln_lora": True, "adaln_lora_dim": 8, "extra_per_block_abs_pos_emb": True,
    "extra_per_block_abs_pos_emb_type": "learnable",
}
PREDICT2 = {
    "image_model": "cosmos_predict2", "max_img_h": 16, "max_img_w": 16, "max_frames": 16,
    "in_channels": 16, "out_channels": 16, "patch_spatial": 2, "patch_temporal": 1,
    "model_channels": 32, "num_blocks": 2, "num_heads": 2, "crossattn_emb_channels": WIDTH,
    "pos_emb_cls": "rope3d", "pos_emb_learnable": True, "use_adaln_lora": True, "adaln_lora_dim": 8,
    "rope_enable_fps_modulation": False,
}
HIDREAM = {
    "image_model": "hidream", "patch_size": 2, "in_channels": 16, "out_channels": 16,
    "num_layers": 1, "num_single_layers": 1, "attention_head_dim": 16, "num_attention_heads": 2,
    "caption_channels": [WIDTH, WIDTH], "text_emb_dim": 8, "num_routed_experts": 4,
    "num_activated_experts": 2, "axes_dims_rope": [8, 4, 4], "max_resolution": [16, 16],
    "llama_layers": [0, 1],
}
MOCHI = {
    "image_model": "mochi_preview", "depth": 2, "patch_size": 2, "num_heads": 2,
    "hidden_size_x": 32, "hidden_size_y": 24, "mlp_ratio_x": 384.0, "mlp_ratio_y": 256.0,
    "learn_sigma": False, "in_channels": 12, "qk_norm": True, "qkv_bias": False, "out_bias": True,
    "attn_drop": 0.0, "patch_embed_bias": True, "posenc_preserve_area": True,
    "timestep_mlp_bias": True, "attend_to_padding": False, "timestep_scale": 1000.0, "use_t5": True,
    "t5_feat_dim": WIDTH, "t5_token_length": 7,
}
OMNIGEN2 = {
    "image_model": "omnigen2", "hidden_size": 48, "num_layers": 2, "num_refiner_layers": 1,
    "num_attention_heads": 2, "num_kv_heads": 1, "multiple_of": 16, "in_channels": 16,
    "patch_size": 2, "axes_dim_rope": [8, 8, 8], "axes_lens": [64, 64, 64], "text_feat_dim": WIDTH,
    "timestep_scale": 1000.0,
}
CASCADE_C = {
    "stable_cascade_stage": "c", "c_cond": 32, "c_hidden": [32, 32], "nhead": [2, 2],
    "blocks": [[1, 1], [1, 1]], "c_clip_text": WIDTH, "c_clip_text_pooled": 8, "c_clip_seq": 2,
    "c_r": 16,
}
CASCADE_B = {
    "stable_cascade_stage": "b", "c_cond": 32, "c_hidden": [16, 16, 32, 32],
    "nhead": [-1, -1, 2, 2], "blocks": [[1, 1, 1, 1], [1, 1, 1, 1]],
    "block_repeat": [[1, 1, 1, 1], [1, 1, 1, 1]], "c_clip": 8, "c_clip_seq": 2, "c_r": 16,
}
ANIMA = {**PREDICT2, "image_model": "anima", "crossattn_emb_channels": 1024}
ERNIE = {
    "image_model": "ernie", "hidden_size": 48, "num_attention_heads": 2, "num_layers": 2,
    "ffn_hidden_size": 64, "text_in_dim": WIDTH, "rope_axes_dim": (8, 8, 8),
}
JOY = {
    "image_model": "joyimage", "hidden_size": 32, "num_attention_heads": 2, "text_dim": WIDTH,
    "mlp_width_ratio": 2.0, "num_layers": 2, "rope_dim_list": [4, 6, 6],
}
IDEOGRAM = {
    "image_model": "ideogram4", "num_layers": 2, "num_attention_heads": 2, "attention_head_dim": 16,
    "intermediate_size": 64, "adaln_dim": 16, "llm_features_dim": WIDTH, "mrope_section": (4, 2, 2),
}
MAGE = {
    "image_model": "mage_flow", "num_layers": 2, "attention_head_dim": 16, "num_attention_heads": 2,
    "joint_attention_dim": WIDTH, "axes_dims_rope": (4, 6, 6),
}
LENS = {
    "image_model": "lens", "num_layers": 2, "attention_head_dim": 16, "num_attention_heads": 2,
    "enc_hidden_dim": WIDTH, "axes_dims_rope": (4, 6, 6), "multi_layer_encoder_feature": False,
}
