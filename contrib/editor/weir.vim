" Vim syntax for weir.conf: put it into ~/.vim/syntax/, and
" au BufRead,BufNewFile weir.conf,*/weir/*.conf set filetype=weir
if exists("b:current_syntax")
  finish
endif

syn match weirComment "\(^\|\s\)\@<=#.*$"
syn region weirString start=+"+ skip=+\\.+ end=+"+ contains=weirEscape,weirVariable,weirFileValue
syn region weirRaw start=+'+ end=+'+
syn region weirHere start="<<\z(\w\+\)$" end="^\z1$"
syn match weirEscape +\\["\\nrt]+ contained
syn match weirVariable "\$\(\w\+\|{\w\+}\|\$\)"
syn match weirFileValue "\${\(env\|file\):[^}]*}"
syn match weirKey "\<[a-z_]\+="me=e-1
syn match weirValue "\<\d\+\(\.\d\+\)\?\(us\|ms\|s\|m\|h\|d\|k\|g\|%\)\?\>"
syn keyword weirSwitch on off auto
syn keyword weirBlock host route upstream listen redis limit function
syn keyword weirDirective include user threads workers error_log access_log log_format admin control
syn keyword weirDirective pid_file module module_path trusted_proxies resolver store_size
syn keyword weirDirective max_connections shutdown_timeout drain_delay server balance health_check
syn keyword weirDirective watch_certificates eject keepalive protocol tls sticky slow_start certificate protocols
syn keyword weirDirective versions ciphers client_certificate ticket_keys hosts proxy_protocol when
syn keyword weirDirective proxy respond redirect rewrite timeout retry body header buffer error_page
syn keyword weirDirective upgrade grpc_web password database

hi def link weirComment Comment
hi def link weirString String
hi def link weirRaw String
hi def link weirHere String
hi def link weirEscape SpecialChar
hi def link weirVariable Identifier
hi def link weirFileValue PreProc
hi def link weirKey Type
hi def link weirValue Number
hi def link weirSwitch Boolean
hi def link weirBlock Structure
hi def link weirDirective Keyword

let b:current_syntax = "weir"
