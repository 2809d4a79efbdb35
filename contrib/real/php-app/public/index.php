<?php echo json_encode(['upper' => mb_strtoupper($_GET['word'] ?? 'straße'), 'limit' => ini_get('memory_limit')], JSON_UNESCAPED_UNICODE), "\n";
