// What pymdownx.arithmatex marks is typeset; nothing else is touched.
window.MathJax = {
  tex: { inlineMath: [['\\(', '\\)']], displayMath: [['\\[', '\\]']], processEscapes: true },
  options: { ignoreHtmlClass: '.*|', processHtmlClass: 'arithmatex' },
};
